"""Tests of agent: status."""
