"""Plans: changes as data, and their display."""
