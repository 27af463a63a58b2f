"""Tests of plans: what is shown, saved and described by schemas."""
