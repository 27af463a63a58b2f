"""Where requests go: Services, other names, and the Secrets and ConfigMaps that are referred to."""
