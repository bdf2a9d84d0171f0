"""How close is equal, in float32, relative to the largest number of the array."""

LAYER = 1e-5
MODEL = 1e-4
