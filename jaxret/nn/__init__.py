"""Linen modules: the encoder, its parts and its heads."""
