"""Tests of kube: ingress."""
