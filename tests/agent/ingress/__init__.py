"""Tests of the agent's thread for Ingresses."""
