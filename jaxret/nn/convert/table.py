"""A table of rules between a checkpoint's tensor names and our parameter paths, checked both ways."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxret.errors import InputError
from jaxret.nn.convert.lazy_tensor import LazyTensor
from jaxret.nn.convert.streaming import filled, host_copy

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
LAYER = "{layer}"
LISTED = 20


@dataclass(frozen=True)
class Rule:
    """One tensor of a checkpoint and where it goes.

    Attributes:
      theirs: the checkpoint's name; where `{layer}` stands in it for a layer's number, `ours` is stacked `[L ...]`.
      ours: our path, "encoder/layers/attention/query/kernel".
      transposed: theirs is `[out in]`, ours `[in out]`.
      part: `(index, count)`: ours is that one of `count` equal chunks of theirs along its axis 0, before transposing.
      first_layer: layers below it have no such tensor. Ours is ones there for a "scale", zeros otherwise, and is left
        out when saving.
      optional: either side may lack it. Ours without theirs is ones for a "scale", zeros for a "bias", an error for
        anything else.
    """

    theirs: str
    ours: str
    transposed: bool = False
    part: tuple[int, int] | None = None
    first_layer: int = 0
    optional: bool = False

    @property
    def layered(self) -> bool:
        """Whether ours is a stack over layers."""
        return LAYER in self.theirs

    def name(self, layer: int | None = None) -> str:
        """The checkpoint's name for a layer's tensor."""
        return self.theirs.replace(LAYER, str(layer))

    def their_shape(self, shape: Shape) -> Shape:
        """The checkpoint's shape of a tensor whose shape with us, without the layer axis, is `shape`."""
        shape = shape[::-1] if self.transposed else shape
        return (shape[0] * self.part[1], *shape[1:]) if self.part and shape else shape

    def our_array(self, theirs: np.ndarray) -> np.ndarray:
        """Our view of the checkpoint's tensor; copies nothing."""
        if self.part:
            index, count = self.part
            rows = len(theirs) // count
            theirs = theirs[index * rows : (index + 1) * rows]
        return theirs.T if self.transposed else theirs


class Pair(NamedTuple):
    """A tensor of the checkpoint and a parameter of ours, or one layer of it."""

    rule: Rule
    layer: int | None

    @property
    def theirs(self) -> str:
        """The checkpoint's name."""
        return self.rule.name(self.layer)

    @property
    def ours(self) -> str:
        """Our path, with the layer where there is one."""
        return self.rule.ours if self.layer is None else f"{self.rule.ours}[{self.layer}]"


@dataclass(frozen=True)
class Table:
    """The rules of one checkpoint layout.

    Several rules may name one parameter of ours (old and new spellings): a checkpoint must give exactly one of them,
    and saving uses the first. Rules whose `ours` the model does not have are idle.

    Attributes:
      rules: in the order in which tensors are saved.
      ignored: regular expressions of whole tensor names that are left out when loading.
    """

    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()

    def checked(self, theirs: Shapes, ours: Shapes, *, place: str | Path = "checkpoint") -> tuple[Pair, ...]:
        """What to copy where: the pairs to load, in the order of the rules.

        Args:
          theirs: the checkpoint's tensor names and shapes.
          ours: our parameter paths and shapes, `[L ...]` for stacked ones.
          place: the checkpoint, for the error.

        Raises:
          InputError: lists together the checkpoint's unknown tensors, missing ones, pairs of different shapes (with
            both), parameters that two tensors claim and parameters without a rule.
        """
        slots = self._slots(ours)
        given = {slot: [pair for pair in pairs if pair.theirs in theirs] for slot, pairs in slots.items()}
        pairs = tuple(pair for pairs in given.values() for pair in pairs)
        known = {pair.theirs for pair in pairs}
        lacking = [slot for slot, pairs in slots.items() if pairs and not given[slot] and not _fillable(pairs)]
        rivals = [[pair.theirs for pair in pairs] for pairs in given.values() if len(pairs) > 1]
        _raise_problems(
            place,
            {
                "unknown tensors": [name for name in theirs if name not in known and not self._left_out(name, ours)],
                "missing tensors": [f"{slots[slot][0].theirs} for {slots[slot][0].ours}" for slot in lacking],
                "shapes that differ": [line for pair in pairs for line in _misshapen(pair, theirs, ours)],
                "two tensors for one parameter": [" and ".join(names) for names in rivals],
                "parameters without a rule": self._strays(ours),
            },
        )
        return pairs

    def loaded(
        self,
        tensors: Mapping[str, LazyTensor],
        abstract_params: Any,
        *,
        dtype: Any = None,
        place: str | Path = "checkpoint",
    ) -> Any:
        """The parameters, read tensor by tensor straight onto their devices.

        Args:
          tensors: what `open_tensors` gives.
          abstract_params: nested dicts of `jax.ShapeDtypeStruct`; each goes where its sharding says, else on the first
            device.
          dtype: of the parameters; that of `abstract_params` by default.
          place: the checkpoint, for the error.

        Raises:
          InputError: see `checked`.
        """
        likes = flatten_dict(abstract_params, sep="/")
        theirs = {name: tensor.shape for name, tensor in tensors.items()}
        pairs = self.checked(theirs, {path: tuple(like.shape) for path, like in likes.items()}, place=place)
        sources = defaultdict(list)
        for pair in pairs:
            sources[pair.rule.ours].append(pair)

        def rows(path: str) -> Iterator[tuple[int | None, np.ndarray]]:
            for pair in sources[path]:
                yield pair.layer, pair.rule.our_array(tensors[pair.theirs].read())

        return unflatten_dict(
            {path: filled(like, rows(path), fill=_fill(path), dtype=dtype) for path, like in likes.items()}, sep="/"
        )

    def saved(self, params: Any, dtype: Any = None) -> Iterator[tuple[str, np.ndarray]]:
        """The checkpoint's tensors `(name, values)` in the order of the rules, layer by layer, one on the host at once.

        Args:
          params: nested dicts of arrays, on any devices.
          dtype: of the tensors; that of the parameters by default.

        Raises:
          InputError: a parameter has no rule or another number of axes than its rule, a fused tensor lacks one of its
            parts, or a value is too large for `dtype`.
        """
        leaves = flatten_dict(params, sep="/")
        shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
        _raise_problems("params", {"parameters without a rule": self._strays(shapes)})
        fused = defaultdict(list)
        for pairs in self._slots(shapes).values():
            for pair in pairs[:1]:
                fused[pair.theirs].append(pair)
        for name, pairs in fused.items():
            if len(pairs) != (pairs[0].rule.part or (0, 1))[1]:
                found = ", ".join(pair.ours for pair in pairs)
                raise InputError(
                    f"tensor {name}", f"would be made of {found} alone", "Save a model with all its parts."
                )
            yield name, _their_array(name, pairs, leaves, dtype)

    def _slots(self, ours: Shapes) -> dict[tuple[str, int | None], list[Pair]]:
        """For each parameter, or layer of one, the pairs that could give it, in the order of the rules."""
        slots: dict[tuple[str, int | None], list[Pair]] = {}
        for rule in self.rules:
            if rule.ours in ours:
                for layer in range(ours[rule.ours][0]) if rule.layered else (None,):
                    pairs = slots.setdefault((rule.ours, layer), [])
                    if layer is None or layer >= rule.first_layer:
                        pairs.append(Pair(rule, layer))
        return slots

    def _strays(self, ours: Shapes) -> list[str]:
        paths = {rule.ours for rule in self.rules}
        return [path for path in ours if path not in paths]

    def _left_out(self, name: str, ours: Shapes) -> bool:
        idle = [rule for rule in self.rules if rule.optional and rule.ours not in ours]
        patterns = [re.escape(rule.theirs).replace(re.escape(LAYER), r"\d+") for rule in idle]
        return any(re.fullmatch(pattern, name) for pattern in (*self.ignored, *patterns))


def _fill(path: str) -> float:
    return 1.0 if path.endswith("scale") else 0.0


def _fillable(pairs: list[Pair]) -> bool:
    return all(pair.rule.optional for pair in pairs) and pairs[0].rule.ours.endswith(("scale", "bias"))


def _misshapen(pair: Pair, theirs: Shapes, ours: Shapes) -> list[str]:
    shape = ours[pair.rule.ours]
    wanted = pair.rule.their_shape(shape if pair.layer is None else shape[1:])
    found = tuple(theirs[pair.theirs])
    return [] if found == wanted else [f"{pair.theirs} is {list(found)}, not {list(wanted)} as {pair.ours} wants"]


def _raise_problems(place: str | Path, problems: Mapping[str, list[str]]) -> None:
    lines = []
    for title, found in problems.items():
        if found:
            more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
            lines.append(f"{len(found)} {title}: {', '.join(found[:LISTED] + more)}")
    if lines:
        raise InputError(
            place, "; ".join(lines), "Take the configuration and the layout that belong to the checkpoint."
        )


def _their_array(name: str, pairs: list[Pair], leaves: Mapping[str, Any], dtype: Any) -> np.ndarray:
    """The checkpoint's tensor, made of its parts."""
    result: np.ndarray | None = None
    for pair in pairs:
        values = host_copy(leaves[pair.rule.ours], pair.layer)
        if result is None:
            result = np.empty(pair.rule.their_shape(values.shape), dtype or values.dtype)
        try:
            with np.errstate(over="raise"):
                pair.rule.our_array(result)[...] = values
        except FloatingPointError:
            problem = f"a value of {pair.ours} is too large for {result.dtype}"
            raise InputError(f"tensor {name}", problem, "Save it as bfloat16 or float32.") from None
    assert result is not None
    return result
