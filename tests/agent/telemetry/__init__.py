"""Tests of Events, metrics and pages of the agent."""
