"""The layout "pylate": modules.json of sentence-transformers 5, PyLate's Dense, its settings of late interaction."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from jaxret.data.skiplists import words_skiplist
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError
from jaxret.files import read_json
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts.body import write_body
from jaxret.runtime.layouts.description import Description, Layout, overridden
from jaxret.runtime.layouts.modules import MODULES, Step, dense_steps, projection_parts, projections, write_steps
from jaxret.runtime.layouts.multi_vector import expansion_piece
from jaxret.runtime.layouts.records import field, record_in
from jaxret.runtime.layouts.sentence_library import LIBRARY, OLD_CLASSES, Library, write_library
from jaxret.runtime.layouts.settings import checked_marker, vocabulary_fields
from jaxret.runtime.model import Model

NAME, KIND, DENSE = "pylate", "ColBERT", "pylate.models.Dense.Dense"
DEFAULTS = {
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 32,
    "document_length": 180,
    "do_query_expansion": True,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation),
}


def _matches(folder: Path) -> bool:
    if not (folder / MODULES).is_file():
        return False
    rows = read_json(folder / MODULES)
    types = [str(row.get("type")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    model_type = record_in(folder / LIBRARY, optional=True).get("model_type")
    return model_type == KIND or any(name.startswith("pylate.") for name in types)


def _described(folder: Path, **overrides: Any) -> Description:
    library = Library.read(folder)
    body, record, place = library.body, library.record, library.place
    found = {name: field(record, name, type(default), place, default) for name, default in DEFAULTS.items()}
    dense = [module for module in library.modules if module.kind == "Dense"]  # PyLate passes over all others too
    layers = projections(dense, body.encoder.width, "identity")
    expansion: dict[str, Any] = {"expansion_piece": "", "token": None}
    if found["do_query_expansion"]:
        expansion = expansion_piece(body.tokenizer, None, f"{place}: do_query_expansion")
    config = RetrieverConfig(
        body.encoder,
        heads=("multi_vector",),
        maxsim=NAME,
        token_layers=layers,
        attend_to_expansion=found["attend_to_expansion_tokens"] or not found["do_query_expansion"],
        skip_ids=tuple(sorted(_skip_ids(body.tokenizer, found["skiplist_words"]))),
        **vocabulary_fields(body.tokenizer, expansion.pop("token")),
    )
    markers = {
        f"{side}_marker": checked_marker(body.tokenizer, found[name], f"{place}: {name}")
        for side, name in (("query", "query_prefix"), ("passage", "document_prefix"))
    }
    lengths = {
        "query_max_len": body.longest(found["query_length"]),
        "passage_max_len": body.longest(found["document_length"]),
    }
    text = library.text(query_expansion=found["do_query_expansion"], **expansion, **markers, **lengths)
    origin = library.origin(NAME) | {"skiplist_words": found["skiplist_words"]}
    model = Model(config, text, body.tokenizer, origin=origin)
    parts = (body.part("encoder"), *projection_parts(dense, layers, "multi_vector"))
    return Description(overridden(model, overrides), parts)


def _skip_ids(tokenizer: TextTokenizer, words: list[str]) -> set[int]:
    """The ids of the words; one that the vocabulary lacks stands for the unknown piece, as in PyLate."""
    ids = set(words_skiplist(tokenizer, words))
    if tokenizer.unk_id is not None and any(tokenizer.token_id(word) is None for word in words):
        ids.add(tokenizer.unk_id)
    return ids


def _words(model: Model) -> list[str]:
    ids, tokenizer = set(model.config.skip_ids), model.tokenizer
    words = model.origin.get("skiplist_words", [])
    return words if _skip_ids(tokenizer, words) == ids else tokenizer.pieces(sorted(ids))


def _saved(folder: Path, model: Model, params: Any, dtype: Any = None) -> None:
    config, text = model.config, model.text
    if config.heads != ("multi_vector",) or not config.token_layers or not config.normalize_tokens:
        problem = "the model is not an encoder with projections to unit vectors alone"
        raise InputError(f"layout {NAME}", problem, 'Save in the layout "sentence_transformers" or "jaxret".')
    write_body(folder, model, params, dtype)
    steps = [Step("Transformer"), *dense_steps(config, "multi_vector", use_residual=False)]
    write_steps(folder, steps, params, dtype, OLD_CLASSES | {"Dense": DENSE})
    record = {
        "similarity_fn_name": "MaxSim",
        "query_prefix": text.query_marker,
        "document_prefix": text.passage_marker,
        "query_length": text.query_max_len,
        "document_length": text.passage_max_len,
        "do_query_expansion": text.query_expansion,
        "attend_to_expansion_tokens": text.query_expansion and config.attend_to_expansion,
        "skiplist_words": _words(model),
    }
    write_library(folder, model, KIND, record, old=True)


PYLATE = Layout(NAME, _matches, _described, _saved)
