"""Files that a user names: manifests, dumps and configurations for input, and files for output."""
