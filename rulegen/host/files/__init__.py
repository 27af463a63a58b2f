"""Files that a user names: manifests, dumps and configurations that are read, and files that are written."""
