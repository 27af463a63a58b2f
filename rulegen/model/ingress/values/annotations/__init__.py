"""The annotations of an Ingress: one declaration for each, and their reading."""
