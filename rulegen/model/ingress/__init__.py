"""Ingress: what a node answers to HTTP, with every decision taken."""
