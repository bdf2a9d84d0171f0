"""The transformer of a published checkpoint: config.json, tokeniser, weights."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxret.data.pretrained_tokenizer import PretrainedTokenizer
from jaxret.errors import InputError
from jaxret.files import write_json
from jaxret.nn.config import EncoderConfig
from jaxret.nn.convert.configs import ROWS, encoder_config, record_of, row
from jaxret.nn.convert.families import FAMILIES
from jaxret.nn.convert.lazy_tensor import LazyTensor
from jaxret.nn.convert.table import Rule, Table
from jaxret.nn.convert.tensor_files import open_tensors, write_safetensors
from jaxret.nn.heads import LMHeadConfig
from jaxret.runtime.layouts.description import Part
from jaxret.runtime.layouts.records import record_in
from jaxret.runtime.network import Network

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
UNLIMITED = 10**9  # transformers writes 10**30 where a tokeniser has no limit
NO_LIMIT = 512  # where the positions have none either
_IDS = tuple(f"{name}_token_id" for name in ("pad", "bos", "eos", "cls", "sep", "mask", "unk"))


@dataclass(frozen=True)
class Body:
    """A transformer on disk, its tensors not read.

    Attributes:
      folder: where it is.
      record: its config.json.
      encoder: the same in our words.
      tokenizer: the tokeniser beside it.
    """

    folder: Path
    record: dict[str, Any]
    encoder: EncoderConfig
    tokenizer: PretrainedTokenizer

    @classmethod
    def read(cls, folder: Path) -> Body:
        """Reads JSON and the tokeniser; InputError names what is missing or unknown."""
        record = record_in(folder / CONFIG)
        return cls(folder, record, encoder_config(record, folder / CONFIG), PretrainedTokenizer.load(folder))

    @property
    def family(self) -> str:
        """The family's `model_type`."""
        return self.record["model_type"]

    @property
    def lm_head(self) -> LMHeadConfig:
        """The head that the family's language model has."""
        return row(self.record, self.folder / CONFIG).lm_head({**row(self.record).defaults, **self.record})

    def longest(self, limit: int | None = None) -> int:
        """Ids in the longest text: `limit` or the tokeniser's, and no more than there are positions."""
        place = self.folder / TOKENIZER_CONFIG
        named = record_in(place, optional=True).get("model_max_length") or math.inf
        if not isinstance(named, int | float):
            raise InputError(f"{place}: model_max_length", f"{named!r} is not a number", "Mend the file.")
        positions = (self.encoder.max_positions, self.encoder.usable_positions)
        shortest = min((limit or named, *filter(None, positions)))
        return int(shortest) if shortest < UNLIMITED else NO_LIMIT

    def part(self, *groups: str, extra: tuple[Rule, ...] = ()) -> Part:
        """The weights, for "encoder" and perhaps "lm_head"; `extra` rules are for other tensors of the file."""
        ours = (*groups, *(rule.ours.rpartition("/")[0] for rule in extra))
        head = "lm_head" in groups
        return Part(self.folder, lambda names: body_table(self.family, names, head, extra), ours, _with_new_names)

    def origin(self, layout: str, **more: Any) -> dict[str, Any]:
        """What `Model.origin` keeps."""
        return {"layout": layout, "family": self.family, "config": self.record, **more}


def body_table(family: str, names: Collection[str], head: bool, extra: tuple[Rule, ...] = ()) -> Table:
    """A family's rules for a checkpoint with tensors of these names."""
    known = FAMILIES[family]
    table = known.table(prefix=known.prefix_of(names), head=head)
    return replace(table, rules=(*table.rules, *extra))


def _with_new_names(path: Path) -> dict[str, LazyTensor]:
    """The tensors, norms of TensorFlow's spelling renamed."""
    spellings = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    found = {}
    for name, tensor in open_tensors(path).items():
        last = ".".join(name.split(".")[-2:])
        found[name.removesuffix(last) + spellings.get(last, last)] = tensor
    return found


def family_of(model: Network) -> str:
    """The family to save a model as: where it came from, what its tokeniser says, or the first that can express it.

    Raises:
      InputError: none can.
    """
    named = [model.origin.get("family"), _tokenizer_family(model)]
    problems = []
    for family in dict.fromkeys((*filter(None, named), *ROWS)):
        try:
            record_of(model.config.encoder, family)
        except InputError as error:
            problems.append(error.problem)
        else:
            return family
    raise InputError("EncoderConfig", f"no published family: {problems[0]}", 'Save in the layout "jaxret".')


def write_body(
    folder: Path,
    model: Network,
    params: Any,
    dtype: Any = None,
    *,
    architecture: str = "",
    prefixed: bool = False,
    extra: tuple[Rule, ...] = (),
) -> None:
    """Writes config.json, the tokeniser and the weights: of the encoder, of the language model's head where it is in
    `params`, and of `extra` rules.

    Args:
      folder: where to.
      model: what it is.
      params: all of its parameters.
      dtype: of the tensors; that of the parameters by default.
      architecture: the class in config.json; the family's by default.
      prefixed: put the family's prefix before the body's names, as a model with a head does.
      extra: for parameters beside the body's.

    Raises:
      InputError: the family cannot express it, or the tokeniser is jaxret's own.
    """
    tokenizer = model.tokenizer
    if not isinstance(tokenizer, PretrainedTokenizer):
        fix = 'Save in the layout "jaxret".'
        raise InputError("layout", "published layouts cannot hold a vocabulary of jaxret's own", fix)
    groups = {"encoder", "lm_head"} | {rule.ours.split("/")[0] for rule in extra}
    params = {name: tree for name, tree in params.items() if name in groups}
    head, family = "lm_head" in params, family_of(model)
    write_json(folder / CONFIG, _record(model, family, head, architecture, stored_dtype(params, dtype)))
    tokenizer.save(folder)
    known = FAMILIES[family]
    table = known.table(prefix=known.prefix if head or prefixed else "", head=head)
    tensors = replace(table, rules=(*table.rules, *extra)).saved(params, dtype)
    write_safetensors(folder, chain(tensors, _decoder_bias(model, known.head, params, dtype)))


def _decoder_bias(model: Network, rules: Iterable[Rule], params: Any, dtype: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The second copy of the head's bias, which BERT's and RoBERTa's classes use where the decoder is not tied."""
    if "lm_head" not in params or not model.config.lm_head or model.config.lm_head.tied:
        return
    for rule in rules:
        if rule.ours == "lm_head/bias" and not rule.theirs.endswith("decoder.bias"):
            second = replace(rule, theirs=rule.theirs.removesuffix("bias") + "decoder.bias")
            yield from Table((second,)).saved({"lm_head": {"bias": params["lm_head"]["bias"]}}, dtype)


def stored_dtype(params: Any, dtype: Any = None) -> str:
    """The name of the dtype that parameters are stored in."""
    return jnp.dtype(dtype or jax.tree.leaves(params)[0].dtype).name


def _record(model: Network, family: str, head: bool, architecture: str, dtype: str) -> dict[str, Any]:
    """The config.json: the original's, where it still holds."""
    config, found = model.config, model.origin.get("config", {})
    if not (found and found.get("model_type") == family and encoder_config(found) == config.encoder):
        ids = {name: found[name] for name in _IDS if name in found}
        padding = {} if model.tokenizer.pad_id is None else {"pad_token_id": model.tokenizer.pad_id}
        found = padding | ids | record_of(config.encoder, family)
    bare, with_head = row(found).architectures
    record = {name: value for name, value in found.items() if name != "torch_dtype"}
    record |= {"architectures": [architecture or (with_head if head else bare)], "dtype": dtype}
    return record | _head_record(record, config.lm_head) if head else record


def _head_record(record: Mapping[str, Any], head: LMHeadConfig | None) -> dict[str, Any]:
    """What of config.json says how the language model's head is; InputError where it cannot."""
    assert head is not None
    known = row(record)
    changes: dict[str, Any] = {"tie_word_embeddings": head.tied}
    again = known.lm_head({**known.defaults, **record, **changes})
    if again != head:
        problem = f"a {record['model_type']} language model's head is {again}"
        raise InputError("RetrieverConfig.lm_head", problem, 'Save in the layout "jaxret".')
    return changes


def _tokenizer_family(model: Network) -> str | None:
    if not isinstance(model.tokenizer, PretrainedTokenizer):
        return None
    found = json.loads(dict(model.tokenizer.files).get(CONFIG, b"{}")).get("model_type")
    return found if found in ROWS else None
