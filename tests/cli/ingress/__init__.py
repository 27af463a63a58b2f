"""Tests of cli: ingress."""
