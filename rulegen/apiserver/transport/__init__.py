"""Requests to an API server: kubeconfig, TLS, connections, and limits on what an answer may cost."""
