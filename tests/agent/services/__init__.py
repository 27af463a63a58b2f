"""Tests of syncs, checks and drift of the agent."""
