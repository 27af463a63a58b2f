"""Tests of compiler: services."""
