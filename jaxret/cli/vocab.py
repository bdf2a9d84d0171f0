"""`jaxret vocab`: a SentencePiece vocabulary from a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxret.cli.options import Data, DryRun


def vocab(
    data: Data,
    output: Annotated[Path, typer.Option("--output", help="Where the vocabulary goes, e.g. vocabulary.model.")],
    size: Annotated[int, typer.Option("--size", help="Number of pieces, bytes and markers included.")] = 8000,
    sample: Annotated[
        int | None, typer.Option("--sample", help="Train on this many sentences, drawn at random.")
    ] = 30000,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Trains a SentencePiece vocabulary on a corpus; byte fallback keeps every script."""
    from jaxret.data.beir import read_corpus
    from jaxret.data.text import passage_text
    from jaxret.data.tokenizer import Tokenizer, trained_vocabulary

    corpus = read_corpus(data)
    texts = [passage_text(title, text, "\n") for title, text in zip(corpus.titles, corpus.texts, strict=True)]
    if dry_run:
        print(f"would train {size} pieces on {len(texts)} documents of {data} into {output}")
        return
    tokenizer = Tokenizer(trained_vocabulary(texts, size, sample=sample, seed=seed))
    tokenizer.save(output)
    print(f"{output}: {tokenizer.size} pieces from {len(texts)} documents of {data}")
