"""Backends: each package turns a model into the objects of its mode or engine (rules, sets, virtual servers, nginx)."""
