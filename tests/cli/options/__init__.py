"""Tests of cli: options."""
