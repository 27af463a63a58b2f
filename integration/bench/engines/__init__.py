"""Measurements that are the same for each ingress engine."""
