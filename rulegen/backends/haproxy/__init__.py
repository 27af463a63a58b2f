"""The HAProxy backend: an L7 model as the files of a configuration."""
