"""Requests to an API server: kubeconfig, TLS, connections, and limits for answers."""
