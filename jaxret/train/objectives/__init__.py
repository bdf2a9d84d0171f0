"""What a step minimises: short functions that compose losses with the model."""
