"""Text to objects: YAML, JSON and lines of a watch, with each fault by its path."""
