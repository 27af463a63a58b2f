"""Tests of agent: ingress."""
