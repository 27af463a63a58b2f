"""The ingress engines that the command line knows: a table with one row for each."""
