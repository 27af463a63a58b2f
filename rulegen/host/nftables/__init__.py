"""nf_tables over netlink: tables, sets, maps, chains, rules and elements, written and read without a process."""
