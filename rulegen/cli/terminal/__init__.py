"""Output and input on the terminal: colours, questions, standard streams."""
