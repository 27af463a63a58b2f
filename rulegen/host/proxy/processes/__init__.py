"""The processes of nginx: start, supervision, reload, and status requests."""
