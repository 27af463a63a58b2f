"""Programs that are run: started, bounded in time and output, in a network namespace where asked."""
