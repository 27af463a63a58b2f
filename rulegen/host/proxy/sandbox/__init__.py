"""The sandbox in which a program tests a release without rights."""
