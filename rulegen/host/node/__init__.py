"""What this host is: interfaces, routes, kernel parameters, ports that programs listen on."""
