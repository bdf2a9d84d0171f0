"""`jaxret index`: all that `jaxret search` needs, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxret.cli.options import AnalyzerName, Data, DryRun, Language, MeshShape, Model, Step


def index(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("--output", help="The folder of the index.")],
    language: Language = "en",
    analyzer: AnalyzerName = None,
    step: Step = None,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Encodes a corpus and indexes it for BM25, ready for `jaxret search`."""
    from jaxret.cli.encode import named, text_encoder
    from jaxret.cli.progress import progress
    from jaxret.data.beir import read_corpus
    from jaxret.search import analyzers
    from jaxret.search.index import build_index

    corpus = read_corpus(data)
    analyzers.analyzer(language, analyzer)
    encoder, step = text_encoder(model, step, mesh_shape)
    if dry_run:
        print(f"would index {len(corpus)} documents of {data} with {named(model, step)} into {output}")
        return
    with progress(f"index into {output}", len(corpus)) as advance:
        build_index(output, encoder, model, step, corpus, language, advance, analyzer)
    print(f"{output}: {len(corpus)} documents, {named(model, step)}")
