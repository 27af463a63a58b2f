"""Reads the rules, virtual servers and tables of dumps as Services, without any Kubernetes object."""
