"""Secrets and ConfigMaps that Ingresses refer to: read by name, watched by a fixed number of threads."""
