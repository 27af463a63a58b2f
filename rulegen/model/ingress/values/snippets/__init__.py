"""Snippets of nginx's configuration in annotations and settings: what they say, and whether it may protect."""
