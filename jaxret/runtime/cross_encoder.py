"""A cross-encoder on disk and in memory: what it is (cross_encoder.json), its tokeniser, its parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxret.data.pairs import PairConfig, checked_frame
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError
from jaxret.nn.cross_encoder import CrossEncoder, CrossEncoderConfig
from jaxret.runtime.attention import attention_named
from jaxret.runtime.chunks import in_chunks
from jaxret.runtime.network import abstract, check_positions, check_vocabulary, read_description, write_description
from jaxret.runtime.normalization import normalization
from jaxret.runtime.precision import cast, compute_dtype

DESCRIPTION = "cross_encoder.json"


@dataclass(frozen=True)
class CrossEncoderModel:
    """What a cross-encoder is, without its parameters.

    Attributes:
      config: sizes and head.
      text: how a pair becomes ids.
      tokenizer: text to ids.
      precision: of the products, see `runtime.precision`.
      attention: the implementation, see `runtime.attention`.
      origin: the published checkpoint that it came from; decides nothing, see `Model`.
      chunk_rows: pairs that a device scores at a time in training, see `runtime.chunks`; 0 for all.
      kept_rows: of those in chunks, how many are not computed again.
      remat: what its layers keep for the backward pass, see `nn.encoder.REMATS`.
      unrolled: its layers are compiled one by one, see `nn.encoder.Encoder`.
    """

    file: ClassVar[str] = DESCRIPTION
    config: CrossEncoderConfig
    text: PairConfig
    tokenizer: TextTokenizer
    precision: str = "auto"
    attention: str = "auto"
    origin: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    chunk_rows: int = 0
    kept_rows: int = 0
    remat: str = "none"
    unrolled: bool = False

    def __post_init__(self):
        check_positions("PairConfig.max_len", self.text.max_len, self.config.encoder.usable_positions)
        check_vocabulary(self.tokenizer, self.config.encoder.vocab_size)
        checked_frame(self.tokenizer, self.text)

    def for_search(self) -> CrossEncoderModel:
        """The same model: it is trained and used alike."""
        return self

    @cached_property
    def module(self) -> CrossEncoder:
        """The linen module."""
        return CrossEncoder(self.config, attention_named(self.attention), self.remat, normalization, self.unrolled)

    def __call__(
        self, params: Any, token_ids: jax.Array, type_ids: jax.Array | None = None, rng: jax.Array | None = None
    ) -> Float[Array, " b"]:
        """Scores rows of ids `[b l]` before `activation_fn`, in the compute dtype; `rng` turns dropout on."""
        if not self.chunk_rows:
            return self._apply(params, (token_ids, type_ids), rng)
        inputs, sizes = (token_ids, type_ids), (self.chunk_rows, self.kept_rows)
        return in_chunks(lambda params, ids: self._apply(params, ids, rng), params, inputs, *sizes)

    def _apply(self, params: Any, ids: tuple[jax.Array, jax.Array | None], rng: jax.Array | None) -> Any:
        variables = {"params": cast(params, compute_dtype(self.precision))}
        rngs = None if rng is None else {"dropout": rng}
        return self.module.apply(variables, *ids, deterministic=rng is None, rngs=rngs)

    def abstract_params(self, mesh: Mesh | None = None, dtype: Any = jnp.float32) -> Any:
        """Shapes and dtypes of the parameters, with their shardings where a mesh is given."""
        return abstract(self.boxed, mesh, dtype)

    def init(self, seed: int | jax.Array) -> Any:
        """Fresh float32 parameters; traceable."""
        return nn.meta.unbox(self.boxed(seed))

    def boxed(self, seed: int | jax.Array) -> Any:
        """As `init`, each with its logical axis names."""
        return self.module.init(jax.random.key(seed), jnp.ones((1, 8), jnp.int32))["params"]

    def save_description(self, folder: str | Path) -> None:
        """Writes everything but the parameters into `folder`."""
        record: dict[str, Any] = {"cross_encoder": dataclasses.asdict(self.config), "text": self.text.to_dict()}
        record |= {"precision": self.precision, "attention": self.attention, "origin": self.origin}
        write_description(folder, DESCRIPTION, record, self.tokenizer)

    @classmethod
    def load_description(cls, folder: str | Path) -> CrossEncoderModel:
        """Reads what `save_description` wrote."""
        record, tokenizer = read_description(folder, DESCRIPTION)
        try:
            config = CrossEncoderConfig.from_dict(record["cross_encoder"])
            text = PairConfig.from_dict(record["text"])
            rest = {name: record[name] for name in ("precision", "attention", "origin")}
        except (KeyError, TypeError) as error:
            problem = f"not a description of a cross-encoder ({error})"
            raise InputError(Path(folder) / DESCRIPTION, problem, "Remake it with jaxret train.") from None
        return cls(config, text, tokenizer, **rest)
