"""Tests of what a shell sees: completion, man pages, words of other tools."""
