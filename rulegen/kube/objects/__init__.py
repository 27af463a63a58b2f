"""Kubernetes objects as typed structs, their kinds and names, and the events of a watch."""
