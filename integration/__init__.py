"""Tests on real kernels: packets, drift, interruption. See `integration.lab` for what they run in."""
