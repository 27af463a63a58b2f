"""Ingresses in the agent: changes of objects become a configuration that nginx serves."""
