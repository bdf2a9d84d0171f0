"""The layout "sentence_transformers", as versions before 6 and from 6 on spell it: dense, sparse and multi-vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxret.errors import InputError
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts import multi_vector, sparse
from jaxret.runtime.layouts.body import write_body
from jaxret.runtime.layouts.description import Description, Layout, overridden
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
from jaxret.runtime.layouts.sentence_library import CLASSES, OLD_CLASSES, Library, write_library
from jaxret.runtime.layouts.settings import vocabulary_fields
from jaxret.runtime.model import Model

NAME = "sentence_transformers"
POOLINGS = {  # in the order in which versions before 6 concatenate them
    "cls": ("cls", "pooling_mode_cls_token"),
    "max": ("max", "pooling_mode_max_tokens"),
    "mean": ("mean", "pooling_mode_mean_tokens"),
    "root_mean": ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    "weighted": ("weightedmean", "pooling_mode_weightedmean_tokens"),
    "last": ("lasttoken", "pooling_mode_lasttoken"),
}
KINDS = ("Pooling", "Dense", "Normalize")
WIDTHS = ("embedding_dimension", "word_embedding_dimension")


def _matches(folder: Path) -> bool:
    return (folder / MODULES).is_file()


def _described(folder: Path, **overrides: Any) -> Description:
    library = Library.read(folder)
    if any(module.kind == "SpladePooling" for module in library.modules):
        return sparse.described(library, NAME, overrides)
    if library.record.get("model_type") == "MultiVectorEncoder":
        return multi_vector.described(library, NAME, overrides)
    return _dense(library, overrides)


def _dense(library: Library, overrides: dict[str, Any]) -> Description:
    modules = library.modules[1:]
    refuse_others(library.folder, library.modules, KINDS)
    kinds = [module.kind for module in modules]
    dense = [module for module in modules if module.kind == "Dense"]
    wanted = ["Pooling"] + ["Dense"] * len(dense) + ["Normalize"] * ("Normalize" in kinds)
    if kinds != wanted:
        problem = f"the modules are {', '.join(kinds)}"
        raise InputError(library.folder / MODULES, problem, "Known is the order Pooling, Dense ..., Normalize.")
    body = library.body
    poolings = _poolings(modules[0], body.encoder.width)
    pool_prompt = _pools_prompt(modules[0], poolings, library.old)
    layers = projections(dense, body.encoder.width * len(poolings), "tanh")
    config = RetrieverConfig(
        body.encoder,
        heads=("dense",),
        dense_layers=layers,
        pooling=poolings if len(poolings) > 1 else poolings[0],
        pool_prompt=pool_prompt,
        truncate=field(library.record, "truncate_dim", int, library.place, 0),
        normalize="Normalize" in kinds,
        similarity=library.similarity("cosine"),
        **vocabulary_fields(body.tokenizer),
    )
    model = Model(config, library.text(), body.tokenizer, origin=library.origin(NAME))
    parts = (body.part("encoder"), *projection_parts(dense, layers, "dense"))
    return Description(overridden(model, overrides), parts)


def _poolings(module: Module, width: int) -> tuple[str, ...]:
    """Our names of a Pooling module's modes, in either spelling."""
    record, place = module.record, module.place
    found = next((record[name] for name in WIDTHS if name in record), width)
    if found != width:
        raise InputError(f"{place}: {WIDTHS[0]}", f"{found}, but the transformer's width is {width}", "Mend the file.")
    modes = record.get("pooling_mode")
    if modes is None:
        modes = [theirs for theirs, old in POOLINGS.values() if record.get(old)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    names = {theirs: ours for ours, (theirs, _) in POOLINGS.items()}
    if not modes or any(mode not in names for mode in modes):
        fix = f"Known are {', '.join(names)}."
        raise InputError(f"{place}: pooling_mode", f"{' + '.join(map(str, modes)) or 'none'}", fix)
    return tuple(names[mode] for mode in modes)


def _pools_prompt(module: Module, poolings: tuple[str, ...], old: bool) -> bool:
    """Whether prompts are pooled; InputError where the library leaves them out in another way than jaxret.

    A weighted mean counts its weights from the prompt on, and versions before 6 take [CLS] all the same.
    """
    pools = field(module.record, "include_prompt", bool, module.place, True)
    for name in () if pools else ("weighted", *(("cls",) if old else ())):
        if name in poolings:
            problem = f"false, which is not known together with {POOLINGS[name][0]}"
            raise InputError(f"{module.place}: include_prompt", problem, "Choose another pooling.")
    return pools


def _saved(folder: Path, model: Model, params: Any, dtype: Any = None) -> None:
    config = model.config
    if len(config.heads) != 1:
        fix = 'Save in the layout "bge_m3" or "jaxret".'
        raise InputError("layout", f"{NAME} holds one head, not {', '.join(config.heads)}", fix)
    if config.heads == ("lexical",):
        return sparse.saved(folder, model, params, dtype)
    if config.heads == ("multi_vector",):
        return multi_vector.saved(folder, model, params, dtype)
    write_body(folder, model, params, dtype)
    old = model.text.strip
    io = {} if old else dict.fromkeys(("module_input_name", "module_output_name"), "sentence_embedding")
    pooling = pooling_record(config.poolings, config.encoder.width, config.pool_prompt, old)
    steps = [Step("Transformer"), Step("Pooling", pooling)]
    steps += dense_steps(config, "dense", **io)
    steps += [Step("Normalize", io or None)] if config.normalize else []
    write_steps(folder, steps, params, dtype, OLD_CLASSES if old else CLASSES)
    truncate = {"truncate_dim": config.truncate} if config.truncate else {}
    write_library(folder, model, "SentenceTransformer", {"similarity_fn_name": config.similarity} | truncate)


def pooling_record(poolings: tuple[str, ...], width: int, pool_prompt: bool, old: bool) -> dict[str, Any]:
    """The config.json of a Pooling module, as versions before 6 spell it if `old`."""
    if old:
        flags: dict[str, Any] = {spelled: name in poolings for name, (_, spelled) in POOLINGS.items()}
        return {WIDTHS[1]: width} | flags | {"include_prompt": pool_prompt}
    modes = [POOLINGS[name][0] for name in poolings]
    mode = modes if len(modes) > 1 else modes[0]
    return {WIDTHS[0]: width, "pooling_mode": mode, "include_prompt": pool_prompt}


SENTENCE_TRANSFORMERS = Layout(NAME, _matches, _described, _saved)
