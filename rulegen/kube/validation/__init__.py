"""Validates objects as the API server does: one module for each group of kinds."""
