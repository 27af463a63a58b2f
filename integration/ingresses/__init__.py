"""Requests through the node's nginx: what is served, what is refused, under load and after kills."""
