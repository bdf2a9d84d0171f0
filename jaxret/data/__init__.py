"""Sources, tokens, training examples and batches."""
