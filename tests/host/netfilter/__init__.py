"""Tests of iptables, nf_tables and dumps."""
