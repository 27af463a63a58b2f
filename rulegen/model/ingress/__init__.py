"""Ingress: how a node answers HTTP requests, with all decisions made."""
