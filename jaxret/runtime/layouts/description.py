"""What a layout says of a checkpoint: the model, and which file's tensors fill which parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxret.data.text import TextConfig
from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig
from jaxret.nn.convert.lazy_tensor import LazyTensor
from jaxret.nn.convert.table import Table
from jaxret.nn.convert.tensor_files import open_tensors
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.model import Model


@dataclass(frozen=True)
class Part:
    """Tensors of one file or folder, and the parameters that they fill.

    Attributes:
      path: what `opened` opens.
      table: the rules, given the names of the tensors there (a prefix may or may not be spelled out).
      ours: prefixes of the parameters' paths, ("encoder", "lm_head") for example.
      opened: the tensors of a path, none of them read.
    """

    path: Path
    table: Callable[[Collection[str]], Table]
    ours: tuple[str, ...]
    opened: Callable[[Path], Mapping[str, LazyTensor]] = open_tensors


def always(table: Table) -> Callable[[Collection[str]], Table]:
    """The table of a `Part` whose tensors have the same names everywhere."""
    return lambda names: table


@dataclass(frozen=True)
class Description:
    """Everything about a checkpoint but its tensors.

    Attributes:
      model: what it is, a `Model` or a `CrossEncoderModel`; its `origin` says how it was written.
      parts: the files with tensors; none where `workdir` has them.
      workdir: a folder of jaxret's own, whose `checkpoints` hold the parameters.
    """

    model: Any
    parts: tuple[Part, ...] = ()
    workdir: Path | None = None


@dataclass(frozen=True)
class Layout:
    """One way of laying a retriever out in a folder.

    Attributes:
      name: what users call it.
      matches: whether a folder has this layout, by the names of its files and their JSON.
      described: `(folder, **overrides)`, see `overridden`. Reads JSON and the tokeniser; InputError names the file and
        the field.
      saved: `(folder, model, params, dtype)`: writes everything into an empty folder. InputError where the layout
        cannot hold a part of the model.
      bare: its library leaves heads and texts to its user, so that a file of ours may say them.
    """

    name: str
    matches: Callable[[Path], bool]
    described: Callable[..., Description]
    saved: Callable[[Path, Model, Any, Any], None]
    bare: bool = False


def overridden(model: Model, overrides: Mapping[str, Any]) -> Model:
    """The model with other settings: fields of RetrieverConfig, EncoderConfig, TextConfig, precision and attention.

    Raises:
      InputError: no such field, listing those that there are; or a value that the field does not take.
    """
    kinds = {"config": RetrieverConfig, "encoder": EncoderConfig, "text": TextConfig}
    owners = {field.name: name for name, kind in kinds.items() for field in dataclasses.fields(kind)}
    owners = {name: owner for name, owner in owners.items() if name != "encoder"} | dict.fromkeys(
        ("precision", "attention"), "model"
    )
    changes: dict[str, dict[str, Any]] = {owner: {} for owner in (*kinds, "model")}
    for name, value in overrides.items():
        if name not in owners:
            raise InputError("overrides", f"unknown setting {name!r}", f"Choose from {', '.join(sorted(owners))}.")
        changes[owners[name]][name] = tuple(value) if isinstance(value, list) else value
    encoder = dataclasses.replace(model.config.encoder, **changes["encoder"])
    config = dataclasses.replace(model.config, encoder=encoder, **changes["config"])
    text = dataclasses.replace(model.text, **changes["text"])
    return dataclasses.replace(model, config=config, text=text, **changes["model"])
