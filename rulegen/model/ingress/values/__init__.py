"""Annotations and ConfigMap keys: each read into a type, or rejected with the reason."""
