"""Tests of the facts of a host."""
