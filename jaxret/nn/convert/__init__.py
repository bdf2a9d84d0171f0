"""Foreign weights: tensors in files, and the tables that carry them to our parameters and back."""
