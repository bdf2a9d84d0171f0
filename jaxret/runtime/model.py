"""A model on disk and in memory: what it is (retriever.json), its vocabulary, its parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import Tokenizer
from jaxret.errors import InputError
from jaxret.files import existing_folder, read_json, write_json
from jaxret.nn.encoder import EncoderConfig
from jaxret.nn.retriever import Embeddings, Retriever, RetrieverConfig, Side
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.mesh import parameter_shardings
from jaxret.runtime.precision import cast, compute_dtype

DESCRIPTION, VOCABULARY = "retriever.json", "vocabulary.model"


@dataclass(frozen=True)
class Model:
    """What a model is, without its parameters: sizes, text template, tokeniser, precision."""

    config: RetrieverConfig
    text: TextConfig
    tokenizer: Tokenizer
    precision: str = "auto"

    @cached_property
    def module(self) -> Retriever:
        """The linen module."""
        return Retriever(self.config)

    def apply(self, params: Any, token_ids: jax.Array, side: Side, rng: jax.Array | None = None) -> Embeddings:
        """Embeds token ids `[b l]` in the compute dtype; `rng` turns dropout on."""
        variables = {"params": cast(params, compute_dtype(self.precision))}
        rngs = None if rng is None else {"dropout": rng}
        embeddings: Any = self.module.apply(variables, token_ids, side, deterministic=rng is None, rngs=rngs)
        return embeddings

    def abstract_params(self, mesh: Mesh | None = None) -> Any:
        """Shapes and dtypes of the parameters, with their shardings where a mesh is given."""
        boxed = jax.eval_shape(self._boxed, jax.random.key(0))
        shapes = nn.meta.unbox(boxed)
        if mesh is None:
            return shapes
        shardings = parameter_shardings(boxed, mesh)
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)

    def init(self, seed: int | jax.Array) -> Any:
        """Fresh float32 parameters; traceable."""
        return nn.meta.unbox(self._boxed(jax.random.key(seed)))

    def _boxed(self, key: jax.Array) -> Any:
        return self.module.init(key, jnp.ones((1, 8), jnp.int32), "query")["params"]

    def save_description(self, folder: str | Path) -> None:
        """Writes everything but the parameters into `folder`."""
        folder = Path(folder)
        self.tokenizer.save(folder / VOCABULARY)
        record = {"retriever": dataclasses.asdict(self.config), "text": dataclasses.asdict(self.text)}
        write_json(folder / DESCRIPTION, record | {"precision": self.precision})

    @classmethod
    def load_description(cls, folder: str | Path) -> Model:
        """Reads what `save_description` wrote."""
        folder = existing_folder(folder)
        path = folder / DESCRIPTION
        record = read_json(path)
        try:
            fields = dict(record["retriever"])
            encoder = EncoderConfig(**fields.pop("encoder"))
            lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
            config = RetrieverConfig(encoder=encoder, **fields | lists)
            text = TextConfig(**record["text"])
            precision = record["precision"]
        except (KeyError, TypeError) as error:
            raise InputError(
                path, f"not a description of a retriever ({error})", "Remake it with jaxret train."
            ) from None
        return cls(config, text, Tokenizer.load(folder / VOCABULARY), precision)


def load_model(workdir: str | Path, mesh: Mesh, step: int | None = None) -> tuple[Model, Any, int]:
    """A trained model, its parameters placed on the mesh, and the step they are of (the latest by default)."""
    model = Model.load_description(workdir)
    checkpoints = Checkpoints(Path(workdir) / "checkpoints", read_only=True)
    try:
        params, step = checkpoints.restore_params(model.abstract_params(mesh), step)
    finally:
        checkpoints.close()
    return model, params, step
