"""Tests of agent: telemetry."""
