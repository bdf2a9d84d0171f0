"""Writes every golden checkpoint but those of make_pylate_checkpoints: python -m tests.parity.make_checkpoints."""

from __future__ import annotations

from tests.parity import (
    make_bge_m3,
    make_cross_encoders,
    make_encoders,
    make_late_interaction,
    make_sentence_transformers,
)


def main() -> None:
    """Writes them all."""
    make_encoders.main([])
    make_sentence_transformers.main([])
    make_late_interaction.main([])
    make_bge_m3.main()
    make_cross_encoders.main([])


if __name__ == "__main__":
    main()
