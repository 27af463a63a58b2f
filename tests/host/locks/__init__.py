"""Locks of files and of agents."""
