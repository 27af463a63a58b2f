"""Secrets and ConfigMaps that Ingresses refer to: read by name, watched by few threads whatever their number."""
