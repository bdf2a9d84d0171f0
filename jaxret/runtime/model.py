"""A model on disk and in memory: what it is (retriever.json), its tokeniser, its parameters."""

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

from jaxret.data.text import TextConfig, prompt_lengths
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError
from jaxret.nn import lora
from jaxret.nn.encoder import unstacked
from jaxret.nn.retriever import Embeddings, Retriever, RetrieverConfig, Side
from jaxret.runtime.attention import attention_named
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.chunks import in_chunks
from jaxret.runtime.network import abstract, check_positions, check_vocabulary, read_description, write_description
from jaxret.runtime.normalization import normalization
from jaxret.runtime.precision import cast, compute_dtype

DESCRIPTION = "retriever.json"
MOST_UNROLLED = 12  # layers; each takes its time to compile


@dataclass(frozen=True)
class Model:
    """What a model is, without its parameters.

    Attributes:
      config: sizes and heads.
      text: the text template.
      tokenizer: text to ids.
      precision: of the products, see `runtime.precision`.
      attention: the implementation, see `runtime.attention`.
      origin: the published checkpoint that it came from, as `runtime.layouts` describes it; decides nothing about what
        the model computes, and two models may be equal without it.
      chunk_rows: rows that a device embeds at a time when an objective calls, see `runtime.chunks`; 0 for all.
      kept_rows: of those in chunks, how many are not computed again.
      remat: what its layers keep for the backward pass, see `nn.encoder.REMATS`.
      unrolled: its layers are compiled one by one, see `nn.encoder.Encoder`.
    """

    file: ClassVar[str] = DESCRIPTION
    config: RetrieverConfig
    text: TextConfig
    tokenizer: TextTokenizer
    precision: str = "auto"
    attention: str = "auto"
    origin: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    chunk_rows: int = 0
    kept_rows: int = 0
    remat: str = "none"
    unrolled: bool = False

    def __post_init__(self):
        for name in ("query_max_len", "passage_max_len"):
            check_positions(f"TextConfig.{name}", getattr(self.text, name), self.config.encoder.usable_positions)
        check_vocabulary(self.tokenizer, self.config.encoder.vocab_size)

    def for_search(self) -> Model:
        """The same model, with dense vectors whose dot product is its similarity."""
        cosine = self.config.similarity == "cosine" and not self.config.normalize
        return dataclasses.replace(self, config=dataclasses.replace(self.config, normalize=True)) if cosine else self

    @cached_property
    def module(self) -> Retriever:
        """The linen module."""
        unpooled = (0, 0) if self.config.pool_prompt else prompt_lengths(self.tokenizer, self.text)
        how = (attention_named(self.attention), unpooled, self.remat, normalization, self.unrolled)
        return Retriever(self.config, *how)

    def apply(self, params: Any, token_ids: jax.Array, side: Side, rng: jax.Array | None = None) -> Embeddings:
        """Embeds token ids `[b l]` in the compute dtype; `rng` turns dropout on."""
        params = cast(params, compute_dtype(self.precision))
        variables = {"params": unstacked(params) if self._unrolled(rng) else params}
        rngs = None if rng is None else {"dropout": rng}
        embeddings: Any = self.module.apply(variables, token_ids, side, deterministic=rng is None, rngs=rngs)
        return embeddings

    def __call__(self, params: Any, token_ids: jax.Array, side: Side, rng: jax.Array | None = None) -> Embeddings:
        """`apply`, for an objective: in chunks, if there is a number of rows for them."""
        if not self.chunk_rows:
            return self.apply(params, token_ids, side, rng)
        sizes = self.chunk_rows, self.kept_rows
        return in_chunks(lambda params, ids: self.apply(params, ids, side, rng), params, token_ids, *sizes)

    def _unrolled(self, rng: jax.Array | None) -> bool:
        """Whether layers run one by one: on a single CPU, whose scans copy each layer's parameters and states.

        Not with dropout, whose keys are those of the scan.
        """
        encoder, mesh = self.config.encoder, jax.sharding.get_abstract_mesh()
        drops = rng is not None and (encoder.dropout > 0 or lora.drops())
        alike = encoder.num_layers <= MOST_UNROLLED and self.remat == "none" and not drops
        return jax.default_backend() == "cpu" and mesh.size <= 1 and alike

    def abstract_params(self, mesh: Mesh | None = None, dtype: Any = jnp.float32) -> Any:
        """Shapes and dtypes of the parameters, with their shardings where a mesh is given."""
        return abstract(self.boxed, mesh, dtype)

    def init(self, seed: int | jax.Array) -> Any:
        """Fresh float32 parameters; traceable."""
        return nn.meta.unbox(self.boxed(seed))

    def boxed(self, seed: int | jax.Array) -> Any:
        """As `init`, each with its logical axis names."""
        return self.module.init(jax.random.key(seed), jnp.ones((1, 8), jnp.int32), "query")["params"]

    def save_description(self, folder: str | Path) -> None:
        """Writes everything but the parameters into `folder`."""
        record: dict[str, Any] = {"retriever": dataclasses.asdict(self.config), "text": dataclasses.asdict(self.text)}
        record |= {"precision": self.precision, "attention": self.attention, "origin": self.origin}
        write_description(folder, DESCRIPTION, record, self.tokenizer)

    @classmethod
    def load_description(cls, folder: str | Path) -> Model:
        """Reads what `save_description` wrote."""
        record, tokenizer = read_description(folder, DESCRIPTION)
        try:
            config = RetrieverConfig.from_dict(record["retriever"])
            text = TextConfig.from_dict(record["text"])
            rest = {name: record[name] for name in ("precision", "attention")} | {"origin": record.get("origin", {})}
        except (KeyError, TypeError) as error:
            problem = f"not a description of a retriever ({error})"
            raise InputError(Path(folder) / DESCRIPTION, problem, "Remake it with jaxret train.") from None
        return cls(config, text, tokenizer, **rest)


def load_model(workdir: str | Path, mesh: Mesh, step: int | None = None) -> tuple[Model, Any, int]:
    """A trained model, its parameters placed on the mesh, and the step they are of (the latest by default)."""
    model = Model.load_description(workdir)
    checkpoints = Checkpoints(Path(workdir) / "checkpoints", read_only=True)
    try:
        params, step = checkpoints.restore_params(model.abstract_params(mesh), step)
    finally:
        checkpoints.close()
    return model, params, step
