"""All layouts, and the four things to do with one: find it, describe it, load it, save in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from jaxret.errors import InputError
from jaxret.files import atomic_folder
from jaxret.runtime.hub import local_folder
from jaxret.runtime.layouts.bge_m3 import BGE_M3
from jaxret.runtime.layouts.colbert import COLBERT
from jaxret.runtime.layouts.description import Description, Layout
from jaxret.runtime.layouts.huggingface import HUGGINGFACE
from jaxret.runtime.layouts.loading import Missing, loaded_params
from jaxret.runtime.layouts.pylate import PYLATE
from jaxret.runtime.layouts.sentence_transformers import SENTENCE_TRANSFORMERS
from jaxret.runtime.layouts.settings import settings_in, write_settings
from jaxret.runtime.layouts.workdir import JAXRET
from jaxret.runtime.model import Model

_IN_ORDER = (JAXRET, BGE_M3, COLBERT, PYLATE, SENTENCE_TRANSFORMERS, HUGGINGFACE)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _IN_ORDER}


def layout_of(path: str | Path, name: str = "auto") -> Layout:
    """The layout of that name, or the first in `LAYOUTS` that a folder matches.

    Raises:
      InputError: no such name, or a folder of no known layout.
    """
    if name != "auto":
        if name not in LAYOUTS:
            raise InputError("layout", f"unknown {name!r}", f"Choose one of auto, {', '.join(LAYOUTS)}.")
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.matches(Path(path)):
            return layout
    fix = "Give a folder with retriever.json (jaxret's), modules.json (sentence-transformers') or config.json."
    raise InputError(path, "no checkpoint of a known layout", fix)


def describe(path: str | Path, layout: str = "auto", *, revision: str | None = None, **overrides: Any) -> Description:
    """Everything about a checkpoint but its tensors, from JSON and the tokeniser alone.

    Args:
      path: a folder, or "hf:organisation/name" on the Hugging Face hub.
      layout: one of `LAYOUTS`, or "auto".
      revision: of the hub's repository.
      overrides: fields of RetrieverConfig, EncoderConfig or TextConfig, precision, attention.

    Raises:
      InputError: a file is missing or broken, or says something that jaxret does not do; names file and field.
    """
    folder = local_folder(str(path), revision)
    chosen = layout_of(folder, layout)
    return chosen.described(folder, **settings_in(folder) | overrides)


def load_pretrained(
    path: str | Path,
    mesh: Mesh,
    *,
    layout: str = "auto",
    step: int | None = None,
    dtype: Any = jnp.float32,
    missing: Missing = "raise",
    seed: int = 0,
    revision: str | None = None,
    **overrides: Any,
) -> tuple[Model, Any]:
    """A model and its parameters, placed on the mesh: `describe`, then `loaded_params`."""
    description = describe(path, layout, revision=revision, **overrides)
    return description.model, loaded_params(description, mesh, dtype, missing, seed, step)


def save_pretrained(path: str | Path, model: Model, params: Any, layout: str = "auto", dtype: Any = None) -> Path:
    """Writes a model into a folder: all of it or nothing.

    Args:
      path: the folder, a new or an empty one.
      model: what it is.
      params: its parameters.
      layout: one of `LAYOUTS`; "auto" is the one that the model came from, else "jaxret".
      dtype: of the tensors; that of the parameters by default.

    Returns:
      The folder.

    Raises:
      InputError: the folder is not empty; the layout, or the family's config.json, cannot say what the model does.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(path, "is not empty", "Give a new folder, or remove that one first.")
    chosen = layout_of(path, model.origin.get("layout", "jaxret") if layout == "auto" else layout)
    with atomic_folder(path) as folder:
        chosen.saved(folder, model, params, dtype)
        write_settings(folder, model, chosen.described(folder).model, chosen.name, bare=chosen.bare)
    return path
