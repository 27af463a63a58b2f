"""The processes of a proxy: start, supervision, reload, and status requests."""
