"""`jaxret merge`: several models of one shape into one."""

from __future__ import annotations

from typing import Annotated

import typer

from jaxret.cli.options import (
    DryRun,
    Layout,
    MeshShape,
    NewFolder,
    check_choice,
    check_new,
    parsed_mesh_shape,
    parsed_weights,
)
from jaxret.errors import InputError

METHODS = ("average", "weighted", "slerp", "task_vectors", "ema")


def merge(
    models: Annotated[list[str], typer.Argument(help="Folders of any layout, hf:org/name, or WORKDIR@STEP.")],
    output: NewFolder,
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "average",
    weights: Annotated[
        str, typer.Option("--weights", help="One for each model, e.g. 0.7,0.3; added up as they are.")
    ] = "",
    base: Annotated[str, typer.Option("--base", help="task_vectors: what all models were tuned from.")] = "",
    at: Annotated[float, typer.Option("--at", help="slerp: from 0, the first model, to 1, the second.")] = 0.5,
    decay: Annotated[float, typer.Option("--decay", help="ema: what stays of the older ones at each step.")] = 0.9,
    last: Annotated[int, typer.Option("--last", help="Merge the last so many checkpoints of one run.")] = 0,
    layout: Layout = "auto",
    mesh_shape: MeshShape = "-1,1,1",
    dry_run: DryRun = False,
) -> None:
    """Merges models: average, weights of your own, SLERP, task vectors, or a run's moving average."""
    check_choice("--method", method, METHODS)
    check_new(output)
    from jaxret.runtime.layouts import LAYOUTS, save_pretrained
    from jaxret.runtime.merging import Ingredient, checked, last_steps, on_the_arc, weighted_sum
    from jaxret.runtime.mesh import device_mesh

    check_choice("--layout", layout, ("auto", *LAYOUTS))
    if last and len(models) != 1:
        raise InputError("--last", f"{len(models)} models", "Name the one run whose checkpoints to merge.")
    chosen = last_steps(models[0], last) if last else [Ingredient.parsed(name) for name in models]
    shares = _shares(method, parsed_weights(weights), len(chosen), base, decay)
    chosen = [Ingredient.parsed(base), *chosen] if method == "task_vectors" else chosen
    names = ", ".join(f"{share:.4g} x {one}" for share, one in zip(shares, chosen, strict=True))
    what = f"slerp at {at:g} between {chosen[0]} and {chosen[1]}" if method == "slerp" else names
    checked(chosen)
    if dry_run:
        print(f"would merge {what} into {output}")
        return
    mesh = device_mesh(parsed_mesh_shape(mesh_shape))
    model, params = (
        on_the_arc(chosen[0], chosen[1], at, mesh) if method == "slerp" else weighted_sum(chosen, shares, mesh)
    )
    print(f"{save_pretrained(output, model, params, layout)}: {what}")


def _shares(method: str, weights: list[float], count: int, base: str, decay: float) -> list[float]:
    """What each model counts for, the base first where there is one."""
    from jaxret.ops.merging import ema_weights, task_weights

    if weights and method in ("average", "ema", "slerp"):
        raise InputError("--weights", f"{method} takes none", "Leave them out, or choose --method weighted.")
    if len(weights) != count and (weights or method == "weighted"):
        raise InputError("--weights", f"{len(weights)} for {count} models", "Give one for each.")
    if method == "slerp" and count != 2:
        raise InputError("--method", f"slerp of {count} models", "Name two models.")
    if bool(base) != (method == "task_vectors"):
        raise InputError("--base", "goes with task_vectors, and task_vectors with it", "Give both or neither.")
    if not 0 <= decay <= 1:
        raise InputError("--decay", f"{decay} is not between 0 and 1", "Give 0.9, for example.")
    if method == "task_vectors":
        return task_weights(weights or [1.0 / count] * count)
    if method == "ema":
        return ema_weights(count, decay)
    return weights or [1.0 / count] * count
