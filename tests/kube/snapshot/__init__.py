"""Tests of kube: snapshot."""
