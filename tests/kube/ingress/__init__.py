"""Tests of the objects for Ingresses."""
