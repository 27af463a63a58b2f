"""Turns options into the input of the layers below, for all commands."""
