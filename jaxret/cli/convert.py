"""`jaxret convert`: a checkpoint from one layout into another."""

from __future__ import annotations

from typing import Annotated

import typer

from jaxret.cli.options import (
    DryRun,
    Layout,
    MeshShape,
    Model,
    NewFolder,
    Step,
    check_choice,
    check_new,
    parsed_mesh_shape,
)

DTYPES = ("float32", "bfloat16", "float16")


def convert(
    model: Model,
    output: NewFolder,
    layout: Layout = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help=f"Of the weights: {', '.join(DTYPES)}.")] = "float32",
    step: Step = None,
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Writes a workdir or a published checkpoint in another layout, so that other libraries load it."""
    check_choice("--dtype", dtype, DTYPES)
    check_new(output)
    from jaxret.runtime.layouts import LAYOUTS, describe, load_pretrained, save_pretrained
    from jaxret.runtime.mesh import device_mesh

    check_choice("--layout", layout, ("auto", *LAYOUTS))
    if dry_run:
        found = describe(str(model)).model
        print(f"would write {model} ({', '.join(found.config.heads)}) into {output}, layout {layout}")
        return
    loaded, params = load_pretrained(str(model), device_mesh(parsed_mesh_shape(mesh_shape)), step=step)
    print(save_pretrained(output, loaded, params, layout, dtype))
