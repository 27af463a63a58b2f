"""Packets end where they must: every way in, every option, on every variant."""
