"""Runs programs, with limits for time and output, in a network namespace if requested."""
