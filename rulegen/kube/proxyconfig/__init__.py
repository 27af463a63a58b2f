"""Reads and validates kube-proxy's configuration file, as kube-proxy does."""
