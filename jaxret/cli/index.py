"""`jaxret index`: all that `jaxret search` needs, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxret.cli.options import AnalyzerName, Data, DryRun, Language, MeshShape, Model, Step
from jaxret.errors import InputError


def index(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option("--output", help="The folder of the index.")],
    language: Language = "en",
    analyzer: AnalyzerName = None,
    vectors: Annotated[
        str | None, typer.Option("--vectors", help="What jaxret encode made of the same, copied; else encoded now.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Of the vectors encoded now: float32 (the default), bfloat16 or int8.")
    ] = None,
    nbits: Annotated[
        int | None, typer.Option("--nbits", help="1, 2 or 4: compress the tokens too, for search --mode plaid.")
    ] = None,
    pool_factor: Annotated[
        int, typer.Option("--pool_factor", help="Of compressed tokens: keep so many times fewer of a document.")
    ] = 1,
    num_centroids: Annotated[
        int | None, typer.Option("--num_centroids", help="Of compressed tokens; by default the published number.")
    ] = None,
    points_per_centroid: Annotated[
        int | None,
        typer.Option("--points_per_centroid", help="Vectors that k-means learns a centroid from, at most; else 256."),
    ] = None,
    step: Step = None,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Encodes a corpus, or copies its vectors, and makes of it all that `jaxret search` needs."""
    from jaxret.cli.encode import corpus_on_disk, named, text_encoder
    from jaxret.cli.progress import progress
    from jaxret.search import analyzers
    from jaxret.search.corpus import open_store
    from jaxret.search.dtypes import check_dtype
    from jaxret.search.index import build_index
    from jaxret.search.plaid.build import PlaidSettings

    if str(output).startswith("gs:"):
        fix = "Give --output a path; vectors in a bucket can be given as --vectors."
        raise InputError("--output", f"{output}: an index is a folder on a disk", fix)
    if vectors is not None and dtype is not None:
        raise InputError("--dtype", "is of vectors that are encoded now", "Leave it out, or --vectors.")
    dtype = dtype or "float32"
    check_dtype(dtype)
    sizes = {"num_centroids": num_centroids, "points_per_centroid": points_per_centroid}
    chosen = {name: size for name, size in sizes.items() if size is not None}
    if chosen and nbits is None:
        raise InputError(f"--{next(iter(chosen))}", "is of compressed vectors alone", "Give --nbits as well.")
    compression = None if nbits is None else PlaidSettings(nbits=nbits, pool_factor=pool_factor, **chosen)
    analyzers.analyzer(language, analyzer)
    with corpus_on_disk(data, None if dry_run else output) as corpus:
        encoder, step = text_encoder(model, step, mesh_shape)
        if dry_run:
            if vectors is not None:
                open_store(vectors, encoder, corpus)
            print(f"would index {len(corpus)} documents of {data} with {named(model, step)} into {output}")
            return
        build_index(output, encoder, model, step, corpus, language, progress, analyzer, dtype, compression, vectors)
        print(f"{output}: {len(corpus)} documents, {named(model, step)}")
