"""Tests of snapshots of a cluster."""
