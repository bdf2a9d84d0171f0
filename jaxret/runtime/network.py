"""What every model has, whatever it computes: shapes and places of its parameters, and a description in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import flax.linen as nn
import jax
from jax.sharding import Mesh

from jaxret.data.pretrained_tokenizer import load_tokenizer
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.data.tokenizer import Tokenizer
from jaxret.errors import InputError
from jaxret.files import existing_folder, read_json, write_json
from jaxret.runtime.mesh import parameter_shardings

VOCABULARY, TOKENIZER = "vocabulary.model", "tokenizer"


@runtime_checkable
class Network(Protocol):
    """What the trainer and the layouts ask of a model, a retriever's `Model` or a `CrossEncoderModel`.

    Attributes:
      file: of its description in a workdir.
    """

    file: ClassVar[str]

    @property
    def config(self) -> Any:
        """Sizes and heads."""

    @property
    def text(self) -> Any:
        """How texts become ids."""

    @property
    def tokenizer(self) -> Any:
        """Text to ids."""

    @property
    def origin(self) -> Any:
        """The published checkpoint that it came from."""

    def for_search(self) -> Any:
        """What is applied, in training as in search."""

    def boxed(self, seed: Any) -> Any:
        """Fresh float32 parameters, each with its logical axis names; traceable."""

    def init(self, seed: Any) -> Any:
        """The same without the names."""

    def abstract_params(self, mesh: Mesh | None = None, dtype: Any = None) -> Any:
        """Shapes and dtypes of the parameters, with their shardings where a mesh is given."""

    def save_description(self, folder: str | Path) -> None:
        """Writes everything but the parameters into `folder`."""

    @classmethod
    def load_description(cls, folder: str | Path) -> Any:
        """Reads what `save_description` wrote."""


def abstract(boxed: Callable[[int], Any], mesh: Mesh | None, dtype: Any) -> Any:
    """Shapes of what `boxed(seed)` makes, with shardings where a mesh is given."""
    found = jax.eval_shape(boxed, 0)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), nn.meta.unbox(found))
    if mesh is None:
        return shapes
    shardings = parameter_shardings(found, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def check_vocabulary(tokenizer: TextTokenizer, embeddings: int) -> None:
    """InputError where a tokeniser has more ids than the encoder has embeddings."""
    if tokenizer.size > embeddings:
        problem = f"{embeddings} embeddings for a vocabulary of {tokenizer.size}"
        raise InputError("EncoderConfig.vocab_size", problem, "Use the tokeniser that belongs to the model.")


def check_positions(setting: str, length: int, usable: int) -> None:
    """InputError where rows of `length` ids do not fit into the encoder's positions; 0 usable ones mean any number."""
    if usable and length > usable:
        problem = f"{length} ids, but the encoder has {usable} positions"
        raise InputError(setting, problem, f"Give at most {usable}.")


def write_description(folder: str | Path, file: str, record: Any, tokenizer: TextTokenizer) -> None:
    """Writes a model's record and its tokeniser."""
    folder = Path(folder)
    tokenizer.save(folder / (VOCABULARY if isinstance(tokenizer, Tokenizer) else TOKENIZER))
    write_json(folder / file, record)


def read_description(folder: str | Path, file: str) -> tuple[Any, TextTokenizer]:
    """Reads what `write_description` wrote."""
    folder = existing_folder(folder)
    record = read_json(folder / file)
    place = folder / TOKENIZER if (folder / TOKENIZER).is_dir() else folder / VOCABULARY
    return record, load_tokenizer(place)
