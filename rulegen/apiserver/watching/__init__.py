"""Watching the API server: list, then watch, with backoff and resourceVersions, as client-go's reflector does."""
