"""What a run starts from: fresh parameters for a vocabulary, or a published checkpoint."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import optax

from jaxret.data.pretrained_tokenizer import load_tokenizer
from jaxret.data.text import TextConfig
from jaxret.data.text_tokenizer import TextTokenizer
from jaxret.errors import InputError
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts import Description, describe, loaded_params
from jaxret.runtime.model import Model
from jaxret.runtime.network import Network
from jaxret.train.objective import Loss, Objective, divided, objective_of
from jaxret.train.step import TrainState, fresh_state


def described(
    retriever: RetrieverConfig | None,
    text: TextConfig | None,
    vocabulary: str,
    pretrained: str,
    precision: str,
    attention: str,
) -> Description:
    """The model of a run, with the files of its parameters where it starts from a checkpoint.

    Args:
      retriever: sizes and heads; with `pretrained` its encoder is the checkpoint's, and None takes its heads too.
      text: the text template; None takes the checkpoint's.
      vocabulary: the tokeniser of a model that starts fresh.
      pretrained: a checkpoint of any layout; "" starts fresh.
      precision, attention: see `Model`.

    Raises:
      InputError: both or neither of vocabulary and checkpoint, or settings that do not fit them.
    """
    check_one_origin(vocabulary, pretrained)
    if not pretrained:
        if retriever is None or text is None:
            raise InputError("train.retriever, train.text", "not bound", "Bind both, or train.pretrained.")
        tokenizer = load_tokenizer(vocabulary)
        return Description(Model(for_vocabulary(retriever, tokenizer), text, tokenizer, precision, attention))
    found = describe(pretrained)
    model, config = found.model, found.model.config
    if retriever is not None:
        config = with_ids(dataclasses.replace(retriever, encoder=config.encoder), model.tokenizer)
    model = dataclasses.replace(model, config=config, text=text or model.text, precision=precision, attention=attention)
    return dataclasses.replace(found, model=model)


def check_one_origin(vocabulary: str, pretrained: str) -> None:
    """InputError unless a model either starts fresh or from a checkpoint."""
    if bool(vocabulary) == bool(pretrained):
        problem = "both are given" if vocabulary else "neither is given"
        raise InputError("train.vocabulary, train.pretrained", problem, "Give exactly one of them.")


def for_vocabulary(config: RetrieverConfig, tokenizer: TextTokenizer) -> RetrieverConfig:
    """The configuration with the vocabulary's size, its special ids, and its punctuation as the skip-list."""
    encoder = dataclasses.replace(config.encoder, vocab_size=tokenizer.size)
    return with_ids(dataclasses.replace(config, encoder=encoder), tokenizer)


def with_ids(config: RetrieverConfig, tokenizer: TextTokenizer) -> RetrieverConfig:
    """The configuration with a tokeniser's [MASK], special ids and punctuation."""
    mask_id = config.mask_id if tokenizer.mask_id is None else tokenizer.mask_id
    skipped = tuple(sorted(tokenizer.skiplist()))
    return dataclasses.replace(config, mask_id=mask_id, special_ids=tokenizer.special_ids, skip_ids=skipped)


def check_same_model(folder: Path, model: Network) -> None:
    """Makes sure that a workdir that was begun holds this very model."""
    if not (folder / model.file).exists():
        return
    before = model.load_description(folder)
    found = (before.config, before.text, before.tokenizer.fingerprint)
    if found != (model.config, model.text, model.tokenizer.fingerprint):
        fix = "Use the configuration that made it, or a new workdir."
        raise InputError(folder / model.file, "the workdir holds another model", fix)


def begun(
    model: Network, objective: Objective, optimizer: optax.GradientTransformation, seed: int, params: Any
) -> TrainState:
    """The state before the first step, of the model's parameters; traceable."""
    params, state = nn.meta.unbox(objective.begun(model, params, seed))
    return fresh_state(params, optimizer, state)


def first_state(
    description: Description,
    objective: Objective | Loss,
    optimizer: optax.GradientTransformation,
    seed: int,
    abstract: TrainState,
) -> TrainState:
    """The state before the first step, placed as the abstract one; heads that the checkpoint lacks start fresh."""
    model, shardings = description.model, jax.tree.map(lambda x: x.sharding, abstract)
    whole = objective_of(objective)
    start = functools.partial(begun, model, whole, optimizer, seed)
    if not description.parts and description.workdir is None:
        state: TrainState = jax.jit(lambda: start(model.init(seed)), out_shardings=shardings)()
        return dataclasses.replace(state, objective=whole.load(state.objective))
    mesh = jax.tree.leaves(shardings.params)[0].mesh
    params = loaded_params(description, mesh, missing="init", seed=seed)

    def rest(params: Any) -> TrainState:
        state = start(params)
        return dataclasses.replace(state, params=divided(state.params)[1])

    own = dataclasses.replace(shardings, params=divided(shardings.params)[1])
    state = jax.jit(rest, out_shardings=own)(params)
    return dataclasses.replace(state, params={**params, **state.params}, objective=whole.load(state.objective))
