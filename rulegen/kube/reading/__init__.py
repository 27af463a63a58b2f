"""Reads objects from YAML, JSON and lines of a watch; each fault has its path."""
