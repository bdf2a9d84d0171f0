"""modules.json of sentence-transformers and PyLate: the steps of a model, read and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from jaxret.errors import InputError
from jaxret.files import read_json, write_json
from jaxret.nn.convert.table import Rule, Table
from jaxret.nn.convert.tensor_files import write_safetensors
from jaxret.nn.heads import Projection
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts.description import Part, always
from jaxret.runtime.layouts.records import field, record_in

MODULES, CONFIG = "modules.json", "config.json"
LIBRARIES = ("sentence_transformers.", "pylate.")
_TORCH = "torch.nn.modules."
ACTIVATIONS = {
    "identity": f"{_TORCH}linear.Identity",
    "tanh": f"{_TORCH}activation.Tanh",
    "relu": f"{_TORCH}activation.ReLU",
    "gelu": f"{_TORCH}activation.GELU",
    "silu": f"{_TORCH}activation.SiLU",
}


@dataclass(frozen=True)
class Module:
    """One step: its class without the package, its folder and its config.json (empty for the transformer)."""

    kind: str
    folder: Path
    record: dict[str, Any]

    @property
    def place(self) -> Path:
        """Its config.json, for errors."""
        return self.folder / CONFIG


def modules_in(folder: Path) -> list[Module]:
    """The steps in their order; the first is a transformer.

    Raises:
      InputError: broken or foreign: a class of another package, a folder outside, no transformer in the first place.
    """
    place = folder / MODULES
    rows = read_json(place)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(place, "not a list of modules", "Copy the file again.")
    found = []
    for number, row in enumerate(rows):
        kind, path = (field(row, name, str, place, default) for name, default in (("type", None), ("path", "")))
        if not kind.startswith(LIBRARIES):
            fix = "Known are the classes of sentence-transformers and PyLate."
            raise InputError(f"{place}: module {number}", f"code of its own, {kind}", fix)
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(f"{place}: module {number}", f"path {path!r} leads outside", "Mend the file.")
        name, inside = kind.rpartition(".")[2], folder / path
        first = name in ("Transformer", "MLMTransformer")
        if first != (number == 0):
            raise InputError(f"{place}: module {number}", f"{name} in this place", "Only a transformer comes first.")
        found.append(Module(name, inside, {} if first else record_in(inside / CONFIG, optional=True)))
    return found


def refuse_others(folder: Path, modules: Sequence[Module], known: Iterable[str]) -> None:
    """InputError for the first module that is none of the `known` kinds."""
    for number, module in enumerate(modules[1:], 1):
        if module.kind not in known:
            place, fix = f"{folder / MODULES}: module {number}", f"Known here are {', '.join(known)}."
            raise InputError(place, f"{module.kind} is not something that jaxret does", fix)


def projections(modules: Iterable[Module], width: int, default: str) -> tuple[Projection, ...]:
    """The layers of Dense modules behind states of that width; `default` is the activation of a record without one.

    Raises:
      InputError: widths that do not meet, or an unknown activation.
    """
    layers = []
    for module in modules:
        place, record = module.place, module.record
        found, features = (field(record, name, int, place) for name in ("in_features", "out_features"))
        if found != width:
            raise InputError(f"{place}: in_features", f"{found}, but {width} numbers come in", "Mend the file.")
        spelled = field(record, "activation_function", str, place, ACTIVATIONS[default])
        names = {theirs.rpartition(".")[2]: ours for ours, theirs in ACTIVATIONS.items()}
        activation = names.get(spelled.rpartition(".")[2]) if spelled.startswith("torch.") else None
        if activation is None:
            fix = f"Known are {', '.join(ACTIVATIONS.values())}."
            raise InputError(f"{place}: activation_function", f"unknown {spelled!r}", fix)
        bias, residual = (field(record, name, bool, place, name == "bias") for name in ("bias", "use_residual"))
        layers.append(Projection(features, bias, activation, residual))
        width = features
    return tuple(layers)


def projection_parts(modules: Iterable[Module], layers: Sequence[Projection], group: str) -> tuple[Part, ...]:
    """The files of Dense modules with these layers, for `group`/projection_0 and so on."""
    tables = [_table(group, number, layer) for number, layer in enumerate(layers)]
    return tuple(
        Part(module.folder, always(table), tuple(rule.ours for rule in table.rules))
        for module, table in zip(modules, tables, strict=True)
    )


@dataclass(frozen=True)
class Step:
    """One module to write: its kind, its config.json, and for a Dense the names of its tensors."""

    kind: str
    record: Mapping[str, Any] | None = None
    table: Table | None = None


def dense_steps(config: RetrieverConfig, group: str, **more: Any) -> list[Step]:
    """Dense modules for `group`/projection_0 and so on.

    Args:
      config: of the model.
      group: "dense" or "multi_vector".
      more: fields of each config.json.

    Raises:
      InputError: torch has no class for an activation.
    """
    dense = group == "dense"
    steps, width = [], config.pooled_width if dense else config.encoder.width
    for number, layer in enumerate(config.dense_layers if dense else config.token_layers):
        assert isinstance(layer, Projection)
        if layer.activation not in ACTIVATIONS:
            fix = f"Choose one of {', '.join(ACTIVATIONS)}, or the layout jaxret."
            raise InputError("Projection.activation", f"torch has no class for {layer.activation!r}", fix)
        record: dict[str, Any] = {"in_features": width, "out_features": layer.features, "bias": layer.use_bias}
        record |= {"activation_function": ACTIVATIONS[layer.activation], **more}
        record |= {"use_residual": True} if layer.residual else {}
        steps.append(Step("Dense", record, _table(group, number, layer)))
        width = layer.features
    return steps


def write_steps(folder: Path, steps: Sequence[Step], params: Any, dtype: Any, classes: Mapping[str, str]) -> None:
    """Writes modules.json, and each module but the first, the transformer, into a folder of its own.

    Args:
      folder: of the checkpoint.
      steps: in order.
      params: the model's.
      dtype: of the Dense modules' tensors; that of the parameters by default.
      classes: the whole name of each kind of module.
    """
    flat, rows = flatten_dict(params, sep="/"), []
    for number, step in enumerate(steps):
        path = f"{number}_{step.kind}" if number else ""
        names = ("idx", "name", "path", "type")
        rows.append(dict(zip(names, (number, str(number), path, classes[step.kind]), strict=True)))
        if number:
            (folder / path).mkdir()
        if step.record is not None:
            write_json(folder / path / CONFIG, step.record)
        if step.table:
            ours = {rule.ours: flat[rule.ours] for rule in step.table.rules if rule.ours in flat}
            write_safetensors(folder / path, step.table.saved(unflatten_dict(ours, sep="/"), dtype))
    write_json(folder / MODULES, rows)


def _table(group: str, number: int, layer: Projection) -> Table:
    kernels = [("linear", f"{group}/projection_{number}")]
    kernels += [("residual", f"{group}/residual_{number}")] if layer.residual else []
    rules = [Rule(f"{theirs}.weight", f"{ours}/kernel", transposed=True) for theirs, ours in kernels]
    return Table((*rules, Rule("linear.bias", f"{group}/projection_{number}/bias")))
