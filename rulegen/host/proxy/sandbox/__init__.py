"""The sandbox in which `nginx -t` tests a release without rights."""
