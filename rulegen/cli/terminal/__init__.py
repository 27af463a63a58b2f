"""What a user sees and types: colours, questions, standard streams."""
