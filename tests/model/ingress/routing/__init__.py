"""Tests of where the requests of Ingresses go."""
