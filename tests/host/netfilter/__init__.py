"""Tests of host: netfilter."""
