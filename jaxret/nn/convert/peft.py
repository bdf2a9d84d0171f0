"""PEFT's adapter folders: LoRA leaves from `adapter_config.json` and `adapter_model.safetensors`, and back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxret.errors import InputError
from jaxret.files import existing_folder, write_json
from jaxret.nn.convert.lazy_tensor import LazyTensor
from jaxret.nn.convert.peft_settings import SETTINGS, Settings
from jaxret.nn.convert.streaming import filled, host_copy
from jaxret.nn.convert.table import LAYER, Rule, Table
from jaxret.nn.convert.tensor_files import open_tensors, write_safetensors
from jaxret.nn.lora import LoraConfig, abstract_lora, adapter

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TENSOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<name>[^.]+))?\.weight")
_FIX = "Load an adapter of this model's architecture, saved by PEFT."


class _Spot(NamedTuple):
    """Where the update of a module goes."""

    module: str
    rule: Rule
    layer: int | None


def load_adapter(folder: str | Path, table: Table, params: Any) -> tuple[Any, LoraConfig]:
    """The leaves of an adapter, for `lora.joined`, and the configuration that runs them.

    Layers that the adapter leaves out get zeros. Modules of a lower rank than others get zeros up to the highest;
    modules with a scale of their own (`alpha_pattern`) have the difference multiplied into `lora_b`. The module that a
    rule with a `part` names gives its `lora_A` to each part.

    Args:
      folder: of `adapter_config.json` and one of `WEIGHTS`, each module's tensors with or without an adapter's name.
      table: the rules of the adapted model's weights, without a prefix or with the adapter's; `ignored` modules are
        left out.
      params: our parameters, arrays or abstract ones: leaves have the shapes and shardings of their kernels.

    Raises:
      InputError: a setting that we do not have, or tensors that are unknown, incomplete or misshapen.
    """
    folder = existing_folder(folder)
    settings = Settings.read(folder / SETTINGS)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise InputError(folder, "no adapter weights", f"It needs one of {', '.join(WEIGHTS)}.")
    modules = _modules(weights)
    kernels = {path: tuple(leaf.shape) for path, leaf in flatten_dict(params, sep="/").items() if _is_kernel(path)}
    spots = _spots(weights, modules, table, kernels)
    _raise_misshapen(weights, modules, spots, kernels, settings)
    rank = max(settings.rank_of(spot.module) for spot in spots)
    targets = tuple(dict.fromkeys(re.escape(spot.rule.ours.removesuffix("/kernel")) for spot in spots))
    config = LoraConfig(targets, rank, settings.scale * rank, settings.dropout)
    by_kernel = defaultdict(list)
    for spot in spots:
        by_kernel[spot.rule.ours].append(spot)
    leaves = {}
    for path, like in flatten_dict(adapter(abstract_lora(params, config)), sep="/").items():
        kernel, _, side = path.rpartition("lora_")
        found = by_kernel[f"{kernel}kernel"]
        leaves[path] = filled(like, _rows(side, found, modules, settings, rank))
    return unflatten_dict(leaves, sep="/"), config


def save_adapter(
    folder: str | Path,
    params: Any,
    config: LoraConfig,
    table: Table,
    *,
    base_model: str = "",
    dtype: Any = np.float32,
) -> None:
    """Writes the leaves that the parameters hold as a PEFT adapter.

    Layers whose leaves are all zero are left out. Parts of one module that do not share their `lora_a` become one
    update of as many times the rank, which computes the same.

    Args:
      folder: gets `adapter_config.json` and `adapter_model.safetensors`; its other files stay.
      params: with leaves, or the leaves alone.
      config: the one that the leaves were made with.
      table: the rules of the model that is to take the adapter; its names are written as they are.
      base_model: name or folder of that model, for the adapter's record.
      dtype: of the tensors.

    Raises:
      InputError: no leaves, or a leaf without a rule.
    """
    folder = Path(folder)
    leaves = {path: host_copy(leaf) for path, leaf in flatten_dict(adapter(params), sep="/").items()}
    rules: dict[str, Rule] = {}
    for rule in table.rules:
        if _is_kernel(rule.ours) and rule.ours.removesuffix("kernel") + "lora_a" in leaves:
            rules.setdefault(rule.ours, rule)
    stray = [path for path in leaves if path.rpartition("lora_")[0] + "kernel" not in rules]
    if stray or not leaves:
        problem = f"no rule for {', '.join(stray)}" if stray else "no LoRA leaves"
        raise InputError("params", problem, "Save what lora_params made, with the table of that model.")
    fused: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules.values():
        fused[rule.theirs].append(rule)
    updates = {module: pair for parts in fused.values() for module, pair in _updates(parts, leaves)}
    tensors = [
        (f"base_model.model.{module}.lora_{side}.weight", np.asarray(values, dtype))
        for module, pair in updates.items()
        for side, values in zip("AB", pair, strict=True)
    ]
    write_safetensors(folder / WEIGHTS[0], tensors)
    ranks = {module: len(a) for module, (a, _) in updates.items()}
    write_json(folder / SETTINGS, Settings.record(config, ranks, base_model))


def _is_kernel(path: str) -> bool:
    return path.rpartition("/")[2] == "kernel"


def _modules(weights: Path) -> dict[str, dict[str, LazyTensor]]:
    """The tensors "A" and "B" of each module that a file adapts."""
    modules: dict[str, dict[str, LazyTensor]] = defaultdict(dict)
    adapters, unknown = set(), []
    for key, tensor in open_tensors(weights).items():
        if found := _TENSOR.fullmatch(key):
            modules[found["module"]][found["side"]] = tensor
            adapters.add(found["name"])
        else:
            unknown.append(key)
    half = [module for module, pair in modules.items() if len(pair) < 2]
    if unknown or half or not modules:
        names = ", ".join(unknown or half) or "nothing"
        problem = f"lora_A and lora_B of linear modules are wanted, found {names}"
        raise InputError(weights, problem, "Merge what else was trained into the model, or leave it out.")
    if len(adapters) > 1:
        names = ", ".join(str(name) for name in adapters)
        raise InputError(weights, f"several adapters in one file ({names})", "Save each in a folder of its own.")
    return dict(modules)


def _spots(weights: Path, modules: Mapping[str, Any], table: Table, kernels: Mapping[str, Any]) -> list[_Spot]:
    """Where the modules go; several spots for one that is fused."""
    rules = [(_pattern(rule), rule) for rule in table.rules if rule.ours in kernels]

    def found(module: str, prefix: str) -> list[_Spot]:
        for name in dict.fromkeys((module.removeprefix(prefix), module)):
            hits = [(re.fullmatch(pattern, f"{name}.weight"), rule) for pattern, rule in rules]
            if spots := [_Spot(module, rule, _layer(hit)) for hit, rule in hits if hit]:
                return spots
        return []

    prefix = max(_prefixes(modules), key=lambda prefix: sum(bool(found(module, prefix)) for module in modules))
    spots, unknown = [], []
    for module in modules:
        names = {f"{module}.weight", f"{module.removeprefix(prefix)}.weight"}
        if not any(re.fullmatch(pattern, name) for pattern in table.ignored for name in names):
            spots += found(module, prefix)
            unknown += [] if found(module, prefix) else [module]
    taken = [(spot.rule.ours, spot.layer) for spot in spots]
    twice = [spot.module for spot in spots if taken.count((spot.rule.ours, spot.layer)) > 1]
    if unknown or twice or not spots:
        known = ", ".join(dict.fromkeys(rule.theirs.removesuffix(".weight") for _, rule in rules))
        problem = f"{'unknown' if unknown or not spots else 'rival'} modules {', '.join(unknown or twice or modules)}"
        raise InputError(weights, problem, f"{_FIX} Its modules are {known}.")
    return spots


def _pattern(rule: Rule) -> str:
    return re.escape(rule.theirs).replace(re.escape(LAYER), r"(\d+)", 1)


def _layer(hit: re.Match[str]) -> int | None:
    return int(hit[1]) if hit.re.groups else None


def _prefixes(modules: Mapping[str, Any]) -> list[str]:
    """What may stand before all names of a table: none, or names that a module begins with, up to a layer's number."""
    prefixes = {"": None}
    for module in modules:
        names = module.split(".")[:-1]
        for count, name in enumerate(names, 1):
            if name.isdigit():
                break
            prefixes[".".join(names[:count]) + "."] = None
    return list(prefixes)


def _raise_misshapen(
    weights: Path,
    modules: Mapping[str, Mapping[str, LazyTensor]],
    spots: list[_Spot],
    kernels: Mapping[str, tuple[int, ...]],
    settings: Settings,
) -> None:
    lines = {}
    for module, rule, layer in spots:
        *stack, inputs, outputs = kernels[rule.ours]
        if layer is not None and (not stack or layer >= stack[0]):
            lines[module] = f"{module} where there are {stack[0] if stack else 0} layers"
            continue
        rank = settings.rank_of(module)
        wanted = {"A": (rank, inputs), "B": (outputs * (rule.part or (0, 1))[1], rank)}
        for side, tensor in modules[module].items():
            if tensor.shape != wanted[side]:
                lines[module + side] = f"{module}.lora_{side} is {list(tensor.shape)}, not {list(wanted[side])}"
    if lines:
        raise InputError(weights, "; ".join(lines.values()), _FIX)


def _rows(
    side: str, spots: list[_Spot], modules: Mapping[str, Mapping[str, LazyTensor]], settings: Settings, rank: int
) -> Iterator[tuple[int | None, np.ndarray]]:
    """The layers of one of our leaves, one at a time."""
    for module, rule, layer in spots:
        values = modules[module][side.upper()].read().astype(np.float32)
        if side == "a":
            yield layer, np.pad(values.T, ((0, 0), (0, rank - len(values))))
        else:
            factor = np.float32(settings.scale_of(module) / settings.scale)
            values = factor * replace(rule, transposed=True).our_array(values)
            yield layer, np.pad(values, ((0, rank - len(values)), (0, 0)))


def _updates(
    parts: list[Rule], leaves: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """PEFT's A `[r in]` and B `[out r]` of each module that these rules name, layer by layer."""
    stems = [rule.ours.removesuffix("kernel") for rule in parts]
    pairs = [(leaves[f"{stem}lora_a"], leaves[f"{stem}lora_b"]) for stem in stems]
    layered, count = parts[0].layered, (parts[0].part or (0, 1))[1]
    shared = all(np.array_equal(a, pairs[0][0]) for a, _ in pairs)
    for layer in range(len(pairs[0][0])) if layered else (None,):
        chosen = [(a, b) if layer is None else (a[layer], b[layer]) for a, b in pairs]
        if not any(leaf.any() for pair in chosen for leaf in pair):
            continue
        (_, rank), outputs = chosen[0][0].shape, chosen[0][1].shape[1]
        whole_b = np.zeros((count * outputs, rank * (1 if shared else len(parts))), np.float32)
        for number, (rule, (_, b)) in enumerate(zip(parts, chosen, strict=True)):
            rows, column = (rule.part or (0, 1))[0] * outputs, 0 if shared else number * rank
            whole_b[rows : rows + outputs, column : column + rank] = b.T
        whole_a = chosen[0][0].T if shared else np.concatenate([a.T for a, _ in chosen])
        yield parts[0].name(layer).removesuffix(".weight"), (whole_a, whole_b)
