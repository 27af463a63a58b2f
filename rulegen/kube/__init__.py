"""Kubernetes objects: texts and lists to typed objects, and objects to a World. Pure; nothing here does I/O."""
