"""Tests on real kernels: packets, drift, interruption. See `integration.lab` for what they run in."""

import pytest

pytest.register_assert_rewrite("integration.flows", "integration.blackbox")
