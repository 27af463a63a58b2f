"""The annotations of a Service: one declaration for each, and their reading."""
