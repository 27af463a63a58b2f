"""Tests of model/ingress: values."""
