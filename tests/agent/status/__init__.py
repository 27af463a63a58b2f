"""Tests of the addresses that the agent publishes."""
