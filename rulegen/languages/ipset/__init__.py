"""The language of ipset: sets and their entries as data, `ipset save` printed and read, changes as `ipset restore`."""
