"""Kubernetes objects: read, checked, joined to a World."""
