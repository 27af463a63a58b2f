"""Tests of commands with --ingress."""
