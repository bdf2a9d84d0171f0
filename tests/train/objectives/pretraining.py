"""Tiny models, batches and plain loops for the objectives of pretraining."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from jaxret.nn.config import EncoderConfig
from jaxret.nn.heads import LMHeadConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.layouts import save_pretrained
from jaxret.train.objective import objective_of
from jaxret.train.objectives.predicted import states

BERT = EncoderConfig(
    width=16,
    num_layers=1,
    num_heads=2,
    mlp_width=12,
    activation="gelu",
    gated=False,
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    norm="layer",
    norm_bias=True,
    norm_order="post",
    embedding_norm=True,
    final_norm=False,
    positions="learned",
    max_positions=64,
    num_types=1,
    embedding_init=0.5,
)


def quickly(function, *arguments):
    """What the compiled function returns."""
    return jax.jit(function)(*arguments)


def encoded(model, params, token_ids):
    """The encoder's states of texts."""
    return quickly(lambda params, ids: states(model, params, ids, None), params, jnp.asarray(token_ids))


def bert(model, *heads, **changes):
    """The tiny model as a BERT with these heads; "lexical" is SPLADE's."""
    encoder = dataclasses.replace(BERT, vocab_size=model.config.encoder.vocab_size, **changes)
    lm_head = LMHeadConfig() if "lexical" in heads else None
    return dataclasses.replace(model, config=RetrieverConfig(encoder, heads=heads or ("dense",), lm_head=lm_head))


def speaker(model, random_params, folder):
    """Where a language model is saved, which is a teacher and a decoder."""
    found = bert(model, "lexical", width=8)
    return str(save_pretrained(folder, found, random_params(found.abstract_params(), 7)))


def filled(model, objective, random_params, seed=0):
    """Random parameters of model and objective, and its first state."""
    whole = objective_of(objective)

    def begun():
        return nn.meta.unbox(whole.begun(model, model.init(0), 0))

    return random_params(jax.eval_shape(begun)[0], seed), quickly(lambda: begun()[1])


def valued(model, objective, params, state, batch, seed=0):
    """Loss, gradients, next state and metrics of a run's first step, outside of any mesh."""
    arrays = {name: jnp.asarray(x) for name, x in batch.items()}

    def loss(params, state, arrays):
        rng = jax.random.fold_in(jax.random.key(seed), 0)
        return objective_of(objective).loss(model, params, state, arrays, rng)

    program = jax.value_and_grad(loss, has_aux=True)
    (value, (after, metrics)), gradients = quickly(program, params, state, arrays)
    return float(value), gradients, after, metrics


def texts(model, rows, length, seed=0):
    """Ids of so many texts of different lengths, the first one the longest; -1 is padding."""
    random = np.random.default_rng(seed)
    ids = random.integers(7, model.tokenizer.size, (rows, length)).astype(np.int32)
    lengths = np.concatenate([[length], random.integers(4, length + 1, rows - 1)])
    ids[:, 0] = 2
    ids[np.arange(rows), lengths - 1] = 3
    return np.where(np.arange(length)[None, :] < lengths[:, None], ids, -1).astype(np.int32)


def masked_batch(model, rows=8, length=9, seed=0):
    """A batch of `retromae`, with the names of `masked_language_modeling` too."""
    random = np.random.default_rng(seed + 1)
    tokens = texts(model, rows, length, seed)
    where = (random.random(tokens.shape) < 0.4) & (tokens > 6)
    where[0, 1:3] = True
    ids = np.where(where, model.config.mask_id, tokens).astype(np.int32)
    seeds = random.integers(0, 2**31 - 1, rows).astype(np.int32)
    where = where.astype(np.int32)
    names = {"masked": ids, "where": where, "encoder_ids": ids, "encoder_where": where, "decoder_seed": seeds}
    return {"tokens": tokens, **names}


def padded(batch, more=5):
    """The batch with more padding behind each text."""
    fill = {"tokens": -1, "masked": -1, "encoder_ids": -1, "center": -1, "context": -1, "source": -1, "target": -1}

    def longer(name, x):
        return np.pad(x, ((0, 0), (0, more)), constant_values=fill.get(name, 0)) if x.ndim == 2 else x

    return {name: longer(name, x) for name, x in batch.items()}


def layer_norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * p["scale"] + p.get("bias", 0)


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def shares(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def head_shares(x, head, table):
    """The share of each token by BERT's head, of one state."""
    x = layer_norm(gelu(x @ head["transform"]["kernel"] + head["transform"]["bias"]), head["norm"])
    return shares(table @ x + head["bias"])


def wide(tree):
    """As numpy arrays in float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def touched(gradients):
    """Names of the parameters with a gradient."""
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, x in leaves if np.any(np.asarray(x) != 0)}


def names(params, *beginnings):
    """Names of the parameters whose name begins with one of these."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    found = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)
    return {name for name in found if name.startswith(beginnings)}
