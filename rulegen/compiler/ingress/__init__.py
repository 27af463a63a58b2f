"""Compiles Ingresses to a configuration of nginx, and finds the Ingress that nginx rejects."""
