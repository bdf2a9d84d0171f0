"""The layout "jaxret": retriever.json, a tokeniser, and orbax checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.layouts.description import Description, Layout, overridden
from jaxret.runtime.model import DESCRIPTION, Model
from jaxret.runtime.network import Network


def _matches(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def _described(folder: Path, **overrides: Any) -> Description:
    return Description(overridden(Model.load_description(folder), overrides), workdir=folder)


def save_workdir(folder: Path, model: Network, params: Any, dtype: Any = None) -> None:
    """Writes a model as training would have left it at step 0; `dtype` is that of the parameters by default."""
    model.save_description(folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        kept = params if dtype is None else jax.tree.map(lambda x: x.astype(dtype), params)
        checkpoints.save(0, kept, {"step": jnp.zeros((), jnp.int32)}, {"batches": 0})
    finally:
        checkpoints.close()


JAXRET = Layout("jaxret", _matches, _described, save_workdir)
