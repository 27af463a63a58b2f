"""Annotations crossed, in pairs, with the ways that a request can take to a backend."""
