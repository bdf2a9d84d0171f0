"""Compressed late interaction: ColBERTv2's residual compression (2022) with PLAID's search (2022)."""
