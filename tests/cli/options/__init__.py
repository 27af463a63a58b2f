"""Tests of options and configurations."""
