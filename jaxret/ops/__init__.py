"""Ground floor: pure functions from arrays to arrays."""
