"""From options to what the layers below need, for all commands that share it."""
