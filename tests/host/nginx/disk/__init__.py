"""Tests of host/nginx: disk."""
