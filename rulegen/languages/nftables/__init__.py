"""nftables: tables with chains, sets, maps and their elements."""
