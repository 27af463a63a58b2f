"""Tests of host: node."""
