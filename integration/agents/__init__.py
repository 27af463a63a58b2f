"""The agent in the lab: an API server, a kernel, nginx, others who write, and what befalls it."""
