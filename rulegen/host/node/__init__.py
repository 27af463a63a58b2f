"""Facts of this host: interfaces, routes, kernel parameters, and listening ports."""
