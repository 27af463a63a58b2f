"""Tests of readers of annotations and settings."""
