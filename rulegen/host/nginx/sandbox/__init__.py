"""Where a release is tried by `nginx -t` without any rights."""
