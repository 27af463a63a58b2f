"""Ingresses to a configuration of nginx, and which Ingress nginx rejects."""
