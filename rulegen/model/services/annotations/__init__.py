"""Declares and reads the annotations of Services."""
