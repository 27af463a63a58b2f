"""Tests of compiling Services."""
