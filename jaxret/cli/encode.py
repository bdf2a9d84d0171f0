"""`jaxret encode`: a corpus into shards of vectors."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jaxret.cli.options import Data, Distributed, DryRun, MeshShape, Model, Step, parsed_mesh_shape
from jaxret.errors import InputError
from jaxret.files import existing_folder, scratch_folder

if TYPE_CHECKING:
    from jaxret.data.corpus import Corpus


def encode(
    model: Model,
    data: Data,
    output: Annotated[str, typer.Option("--output", help="The folder of the store, or gs://bucket/folder.")],
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or int8 with scales.")] = "float32",
    shard_documents: Annotated[
        int, typer.Option("--shard_documents", help="Documents of a shard, which is in memory at a time.")
    ] = 8192,
    step: Step = None,
    mesh_shape: MeshShape = "-1,1,1",
    distributed: Distributed = False,
    dry_run: DryRun = False,
) -> None:
    """Encodes a corpus once into shards of vectors; a killed run continues where it stopped.

    Of several processes (--distributed) each encodes its share of the shards on its own devices.
    """
    from jaxret.runtime.processes import one_job
    from jaxret.search.dtypes import check_dtype

    check_dtype(dtype)
    if shard_documents < 1:
        raise InputError("--shard_documents", f"{shard_documents} is less than 1", "Give 1 or more.")
    with one_job(distributed), corpus_on_disk(data, None if dry_run else output) as corpus:
        encoder, step = text_encoder(model, step, mesh_shape)
        if dry_run:
            print(f"would encode {len(corpus)} documents of {data} with {named(model, step)} into {output}")
            return
        encode_into(encoder, corpus, output, dtype, shard_documents)
        print(f"{output}: {len(corpus)} documents, {named(model, step)}")


@contextmanager
def corpus_on_disk(data: Path, output: str | Path | None) -> Iterator[Corpus]:
    """The documents of a BEIR folder, their texts in files until the end.

    Args:
      data: the folder.
      output: what will be made of them: the files lie beside it. They lie where temporary files do (TMPDIR) where that
        is in a bucket, or None, if nothing will be made.
    """
    from jaxret.data.beir import BeirFolder

    existing_folder(data)
    bucket = "://" in str(output)
    beside = tempfile.TemporaryDirectory() if output is None or bucket else scratch_folder(output)
    with beside as scratch:
        yield BeirFolder(data, scratch=Path(scratch)).corpus


def text_encoder(model: Path, step: int | None, mesh_shape: str) -> tuple[Any, int | None]:
    """A TextEncoder over this process's devices, and the step of its parameters where the model is a workdir."""
    from jaxret.runtime.layouts import load_pretrained
    from jaxret.runtime.model import DESCRIPTION, load_model
    from jaxret.runtime.processes import meet
    from jaxret.search.encode import TextEncoder

    mesh = _prepared_mesh(mesh_shape)
    meet("the model comes next")  # checkpoints are read by all processes together
    if (model / DESCRIPTION).exists():
        loaded, params, step = load_model(model, mesh, step)
    else:
        loaded, params = load_pretrained(str(model), mesh, step=step)
    return TextEncoder(loaded.for_search(), params, mesh), step


def cross_encoder(model: str, mesh_shape: str) -> Any:
    """A CrossEncoder over this process's devices."""
    from jaxret.runtime.layouts.cross_encoders import load_cross_encoder
    from jaxret.search.cross_encoder import CrossEncoder

    mesh = _prepared_mesh(mesh_shape)
    return CrossEncoder(*load_cross_encoder(model, mesh), mesh)


def _prepared_mesh(mesh_shape: str) -> Any:
    """The mesh of this process's devices, with compiled programs kept on disk and a warning of orbax's left out."""
    import jax

    from jaxret.runtime.compile_cache import use_compile_cache
    from jaxret.runtime.mesh import device_mesh

    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns that a checkpoint is only read
    use_compile_cache()
    return device_mesh(parsed_mesh_shape(mesh_shape), jax.local_devices())


def named(model: Path, step: int | None) -> str:
    """The model as messages call it."""
    return str(model) if step is None else f"step {step} of {model}"


def encode_into(
    encoder: Any, corpus: Any, store: str | Path, dtype: str = "float32", shard_documents: int | None = None
) -> None:
    """Encodes with a progress bar."""
    from jaxret.cli.progress import progress
    from jaxret.search.corpus import encode_corpus

    with progress(f"encode into {store}", len(corpus)) as advance:
        encode_corpus(encoder, corpus, store, advance, dtype, shard_documents)
