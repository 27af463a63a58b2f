"""Locks on files: of one agent for each part of a node, and of a proxy's folder."""
