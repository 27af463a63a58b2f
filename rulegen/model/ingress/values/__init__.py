"""Annotations and ConfigMap keys: each read into a type, or refused with the reason."""
