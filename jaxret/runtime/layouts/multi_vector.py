"""The multi-vector encoder of sentence-transformers 6: projections of tokens, a mask, query expansion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxret.data.skiplists import words_skiplist
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts.body import Body, write_body
from jaxret.runtime.layouts.description import Description, overridden
from jaxret.runtime.layouts.modules import (
    MODULES,
    Module,
    Step,
    dense_steps,
    projection_parts,
    projections,
    refuse_others,
    write_steps,
)
from jaxret.runtime.layouts.records import field
from jaxret.runtime.layouts.sentence_library import CLASSES, TRANSFORMER, Library, write_library
from jaxret.runtime.layouts.settings import vocabulary_fields
from jaxret.runtime.model import Model

RULES = {"maxsim": "exact", "meanmaxsim": "bge_m3"}
STRATEGIES = {"fixed": "query_max_len", "min": "expansion_len"}
KINDS = ("Dense", "MultiVectorMask", "Normalize")
IO = dict.fromkeys(("module_input_name", "module_output_name"), "token_embeddings")


def described(library: Library, layout: str, overrides: Mapping[str, Any]) -> Description:
    """A folder of model_type MultiVectorEncoder."""
    body, modules = library.body, library.modules[1:]
    refuse_others(library.folder, library.modules, KINDS)
    kinds = [module.kind for module in modules]
    dense = [module for module in modules if module.kind == "Dense"]
    if kinds[: len(dense)] != ["Dense"] * len(dense) or len(set(kinds[len(dense) :])) < len(kinds) - len(dense):
        fix = "Known is the order Dense ..., MultiVectorMask, Normalize."
        raise InputError(library.folder / MODULES, f"the modules are {', '.join(kinds)}", fix)
    for module in modules:
        for name in IO if module.kind != "MultiVectorMask" else ():
            if field(module.record, name, str, module.place, IO[name]) != IO[name]:
                raise InputError(f"{module.place}: {name}", f"{module.record[name]!r}", f"Known is {IO[name]}.")
    similarity = field(library.record, "similarity_fn_name", str, library.place, "maxsim")
    if similarity not in RULES:
        fix = f"Known are {', '.join(RULES)}."
        raise InputError(f"{library.place}: similarity_fn_name", f"unknown {similarity!r}", fix)
    expansion, layers = _expansion(library, body), projections(dense, body.encoder.width, "tanh")
    words = _skiplist_words([module for module in modules if module.kind == "MultiVectorMask"])
    config = RetrieverConfig(
        body.encoder,
        heads=("multi_vector",),
        token_layers=layers,
        normalize_tokens="Normalize" in kinds,
        maxsim=RULES[similarity],
        attend_to_expansion=expansion.pop("attend"),
        skip_ids=tuple(sorted(words_skiplist(body.tokenizer, words))),
        **vocabulary_fields(body.tokenizer, expansion.pop("token")),
    )
    origin = library.origin(layout) | {"skiplist_words": words}
    model = Model(config, library.text(**expansion), body.tokenizer, origin=origin)
    parts = (body.part("encoder"), *projection_parts(dense, layers, "multi_vector"))
    return Description(overridden(model, overrides), parts)


def _expansion(library: Library, body: Body) -> dict[str, Any]:
    """The settings of query expansion: TextConfig's, `attend`, and `token`, an id."""
    place = f"{library.modules[0].folder / TRANSFORMER}: query_expansion"
    found = library.settings.get("query_expansion")
    if found is None:
        return {"attend": True, "token": None}
    length = found.get("length") if isinstance(found, dict) else None
    if not isinstance(length, int) or found.get("strategy") not in STRATEGIES:
        fix = f"Known is a length and a strategy of {', '.join(STRATEGIES)}."
        raise InputError(place, f"{found!r}", fix)
    lengths = {STRATEGIES[found["strategy"]]: body.longest(length)}
    piece = expansion_piece(body.tokenizer, found.get("token"), place)
    return {"query_expansion": True, "attend": bool(found.get("attend", False))} | lengths | piece


def expansion_piece(tokenizer: TextTokenizer, piece: str | None, place: str) -> dict[str, Any]:
    """What fills queries up: the piece that a file names, else the tokeniser's [MASK], else the end of a text.

    Returns:
      `expansion_piece` as TextConfig has it, and `token`, its id.

    Raises:
      InputError: the vocabulary has none of them.
    """
    if piece is None and tokenizer.mask_id is not None:
        return {"expansion_piece": "", "token": tokenizer.mask_id}
    if piece is None and tokenizer.end:
        return {"expansion_piece": tokenizer.pieces(tokenizer.end)[-1], "token": tokenizer.end[-1]}
    if piece is None or (token := tokenizer.token_id(piece)) is None:
        raise InputError(place, f"the vocabulary lacks {piece or 'a mask'!r}", "Use the tokeniser of the model.")
    return {"expansion_piece": piece, "token": token}


def _skiplist_words(masks: list[Module]) -> list[str]:
    for mask in masks:
        tasks = field(mask.record, "skiplist_tasks", list, mask.place, ["document"])
        words = field(mask.record, "skiplist_words", list, mask.place, [])
        if words and tasks != ["document"]:
            raise InputError(f"{mask.place}: skiplist_tasks", f"{tasks}", 'Known is ["document"].')
        if mask.record.get("keep_only_token_ids"):
            raise InputError(f"{mask.place}: keep_only_token_ids", "a list of its own", "That is not known.")
        return words
    return []


def skiplist_words(model: Model) -> list[str]:
    """The pieces that a model leaves out of passages: as they were written where it came from, if they still say it.

    Raises:
      InputError: a piece is not the only one of its spelling.
    """
    ids, tokenizer = set(model.config.skip_ids), model.tokenizer
    words = model.origin.get("skiplist_words", [])
    if words_skiplist(tokenizer, words) == ids:
        return words
    words = tokenizer.pieces(sorted(ids))
    if words_skiplist(tokenizer, words) != ids:
        fix = 'Save in the layout "jaxret".'
        raise InputError("RetrieverConfig.skip_ids", "ids that no piece of the vocabulary has", fix)
    return words


def saved(folder: Path, model: Model, params: Any, dtype: Any = None) -> None:
    """Writes it."""
    config, text = model.config, model.text
    write_body(folder, model, params, dtype)
    mask = {"skiplist_words": skiplist_words(model), "skiplist_tasks": ["document"], "keep_only_token_ids": None}
    steps = [Step("Transformer"), *dense_steps(config, "multi_vector", **IO)]
    steps += [Step("MultiVectorMask", mask), *([Step("Normalize", IO)] if config.normalize_tokens else [])]
    write_steps(folder, steps, params, dtype, CLASSES)
    settings: dict[str, Any] = {}
    if text.query_expansion:
        settings["query_expansion"] = {
            "strategy": "min" if text.expansion_len else "fixed",
            "attend": config.attend_to_expansion,
            "token": text.expansion_piece or None,
            "length": text.expansion_len or text.query_max_len,
        }
    similarity = next((theirs for theirs, ours in RULES.items() if ours == config.maxsim), "maxsim")
    write_library(folder, model, "MultiVectorEncoder", {"similarity_fn_name": similarity}, settings)
