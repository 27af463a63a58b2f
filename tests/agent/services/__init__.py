"""Tests of agent: services."""
