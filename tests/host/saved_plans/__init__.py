"""Saved plans on nodes with a real kernel."""
