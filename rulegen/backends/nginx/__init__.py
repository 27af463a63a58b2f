"""Compiles the Ingress model to nginx directives: one file for each host and one for each Service."""
