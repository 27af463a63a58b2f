"""Saved plans on nodes whose kernel is a fake that executes."""
