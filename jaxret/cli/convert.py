"""`jaxret convert`: a checkpoint from one layout into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxret.cli.options import DryRun, MeshShape, Model, Step, parsed_mesh_shape
from jaxret.errors import InputError

DTYPES = ("float32", "bfloat16", "float16")


def convert(
    model: Model,
    output: Annotated[Path, typer.Option("--output", help="The folder to write; it must not exist yet.")],
    layout: Annotated[str, typer.Option("--layout", help="See docs/models.md; by default the one it has.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help=f"Of the weights: {', '.join(DTYPES)}.")] = "float32",
    step: Step = None,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Writes a workdir or a published checkpoint in another layout, so that other libraries load it."""
    if dtype not in DTYPES:
        raise InputError("--dtype", f"unknown {dtype!r}", f"Choose one of {', '.join(DTYPES)}.")
    if output.exists():
        raise InputError(output, "exists already", "Give a new folder.")
    from jaxret.runtime.layouts import LAYOUTS, describe, load_pretrained, save_pretrained
    from jaxret.runtime.mesh import device_mesh

    if layout not in ("auto", *LAYOUTS):
        raise InputError("--layout", f"unknown {layout!r}", f"Choose one of auto, {', '.join(LAYOUTS)}.")
    if dry_run:
        found = describe(str(model)).model
        print(f"would write {model} ({', '.join(found.config.heads)}) into {output}, layout {layout}")
        return
    loaded, params = load_pretrained(str(model), device_mesh(parsed_mesh_shape(mesh_shape)), step=step)
    print(save_pretrained(output, loaded, params, layout, dtype))
