"""Kubernetes objects: reads texts into typed objects, validates them, and builds cluster snapshots. No I/O."""
