"""The layout "bge_m3": XLM-RoBERTa, and two linear maps in files of their own (BGE-M3, Chen et al. 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxret.errors import InputError
from jaxret.nn.convert.table import Rule, Table
from jaxret.nn.convert.tensor_files import open_tensors
from jaxret.nn.heads import Projection
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts.body import Body, write_body
from jaxret.runtime.layouts.description import Description, Layout, Part, always, overridden
from jaxret.runtime.layouts.modules import Step, write_steps
from jaxret.runtime.layouts.records import field, record_in
from jaxret.runtime.layouts.sentence_library import OLD_CLASSES, TRANSFORMER, write_library
from jaxret.runtime.layouts.sentence_transformers import pooling_record
from jaxret.runtime.layouts.settings import plain_text, vocabulary_fields
from jaxret.runtime.layouts.torch_file import write_torch_file
from jaxret.runtime.model import Model

NAME = "bge_m3"
HEADS = {"colbert_linear": "multi_vector/projection_0", "sparse_linear": "lexical/weight"}


def _matches(folder: Path) -> bool:
    return all(any((folder / f"{name}{end}").is_file() for end in (".safetensors", ".pt")) for name in HEADS)


def _described(folder: Path, **overrides: Any) -> Description:
    body = Body.read(folder)
    place = folder / TRANSFORMER
    limit = field(record_in(place, optional=True), "max_seq_length", int, place, 0)
    tokenizer = body.tokenizer
    silent = {tokenizer.pad_id, tokenizer.unk_id, *tokenizer.begin, *tokenizer.end}
    parts = tuple(_part(_file(folder, name), ours) for name, ours in HEADS.items())
    fields = vocabulary_fields(tokenizer) | {
        "special_ids": tuple(sorted(token for token in silent if token is not None))
    }
    config = RetrieverConfig(
        body.encoder,
        token_layers=(Projection(_width(parts[0], body), use_bias=True),),
        pooling="cls",
        skip_first=True,
        maxsim=NAME,
        **fields,
    )
    model = Model(config, plain_text(body.longest(limit)), tokenizer, origin=body.origin(NAME))
    return Description(overridden(model, overrides), (body.part("encoder"), *parts))


def _file(folder: Path, name: str) -> Path:
    twin = folder / f"{name}.safetensors"
    return twin if twin.is_file() else folder / f"{name}.pt"


def _part(path: Path, ours: str) -> Part:
    return Part(path, always(_table(ours)), (ours,))


def _table(ours: str) -> Table:
    return Table((Rule("weight", f"{ours}/kernel", transposed=True), Rule("bias", f"{ours}/bias")))


def _width(part: Part, body: Body) -> int:
    """Numbers in a token vector, from the shape of the map."""
    weight = open_tensors(part.path).get("weight")
    if weight is None or len(weight.shape) != 2 or weight.shape[1] != body.encoder.width:
        found = "no tensor" if weight is None else str(list(weight.shape))
        problem = f"weight is {found}, but the transformer's width is {body.encoder.width}"
        raise InputError(part.path, problem, "Copy the file of this model.")
    return weight.shape[0]


def _saved(folder: Path, model: Model, params: Any, dtype: Any = None) -> None:
    config = model.config
    one = len(config.token_layers) == 1 and not config.dense_layers
    if set(config.heads) != {"dense", "lexical", "multi_vector"} or config.lm_head or not one:
        problem = "the model has not BGE-M3's three heads: a dense one, one weight a token, and one map of the tokens"
        raise InputError(f"layout {NAME}", problem, 'Save in the layout "jaxret".')
    write_body(folder, model, {"encoder": params["encoder"]}, dtype)
    for name, ours in HEADS.items():
        first, second = ours.split("/")
        head = {first: {second: params[first][second]}}
        write_torch_file(folder / f"{name}.pt", _table(ours).saved(head, dtype))
    pooling = Step("Pooling", pooling_record(("cls",), config.encoder.width, config.pool_prompt, old=True))
    write_steps(folder, [Step("Transformer"), pooling, Step("Normalize")], params, dtype, OLD_CLASSES)
    write_library(folder, model, "SentenceTransformer", {"similarity_fn_name": "cosine"}, old=True)


BGE_M3 = Layout(NAME, _matches, _described, _saved)
