"""Snippets in annotations and settings: parses them and decides whether they may refuse requests."""
