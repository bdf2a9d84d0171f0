"""jaxret: train, search and evaluate multilingual text retrievers in JAX, from a laptop to a TPU pod."""

__version__ = "0.1.0"
