"""Tests of releases of nginx on disk."""
