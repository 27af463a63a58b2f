"""The language of ipset: sets and entries as values, the format of `ipset save`, and scripts for `ipset restore`."""
