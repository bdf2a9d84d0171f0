"""SPLADE in the layout of sentence-transformers: a masked language model and SpladePooling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxret.errors import InputError
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts.body import write_body
from jaxret.runtime.layouts.description import Description, overridden
from jaxret.runtime.layouts.modules import MODULES, Step, refuse_others, write_steps
from jaxret.runtime.layouts.records import field
from jaxret.runtime.layouts.sentence_library import CLASSES, OLD_CLASSES, Library, write_library
from jaxret.runtime.layouts.settings import vocabulary_fields
from jaxret.runtime.model import Model

SATURATIONS = {"relu": "log1p", "log1p_relu": "log1p_twice"}


def described(library: Library, layout: str, overrides: Mapping[str, Any]) -> Description:
    """A folder whose modules end in SpladePooling."""
    refuse_others(library.folder, library.modules, ("SpladePooling",))
    pooling = library.modules[-1]
    if len(library.modules) != 2:
        problem = f"{len(library.modules)} modules"
        raise InputError(library.folder / MODULES, problem, "Known are a transformer and one SpladePooling.")
    mode = field(pooling.record, "pooling_strategy", str, pooling.place, "max")
    activation = field(pooling.record, "activation_function", str, pooling.place, "relu")
    for name, value, known in (
        ("pooling_strategy", mode, ("max", "sum")),
        ("activation_function", activation, SATURATIONS),
    ):
        if value not in known:
            raise InputError(f"{pooling.place}: {name}", f"unknown {value!r}", f"Known are {', '.join(known)}.")
    if library.similarity("dot") != "dot":
        fix = "Lexical weights are compared by dot products only."
        raise InputError(f"{library.place}: similarity_fn_name", "not dot", fix)
    body = library.body
    config = RetrieverConfig(
        body.encoder,
        heads=("lexical",),
        lm_head=body.lm_head,
        splade_pooling=mode,
        splade_saturation=SATURATIONS[activation],
        **vocabulary_fields(body.tokenizer),
    )
    model = Model(config, library.text(), body.tokenizer, origin=library.origin(layout))
    return Description(overridden(model, overrides), (body.part("encoder", "lm_head"),))


def saved(folder: Path, model: Model, params: Any, dtype: Any = None) -> None:
    """Writes it; InputError for one weight a token, which sentence-transformers does not know."""
    config, old = model.config, model.text.strip
    if config.lm_head is None:
        fix = 'Save in the layout "bge_m3" or "jaxret".'
        raise InputError("layout", "sentence_transformers has no lexical head of one weight a token", fix)
    write_body(folder, model, params, dtype)
    spelled = {ours: theirs for theirs, ours in SATURATIONS.items()}[config.splade_saturation]
    record: dict[str, Any] = {"pooling_strategy": config.splade_pooling, "activation_function": spelled}
    record["word_embedding_dimension" if old else "embedding_dimension"] = config.encoder.vocab_size
    steps = [Step("MLMTransformer"), Step("SpladePooling", record)]
    write_steps(folder, steps, params, dtype, OLD_CLASSES if old else CLASSES)
    write_library(folder, model, "SparseEncoder", {"similarity_fn_name": "dot"})
