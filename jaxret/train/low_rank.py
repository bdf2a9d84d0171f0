"""Training with LoRA (Hu et al. 2022): factors beside chosen kernels, as parameters of the objective."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxret.nn.lora import KERNEL, A, LoraConfig, adapter, joined, lora_params, merged_at, with_lora
from jaxret.runtime.network import Network
from jaxret.train.objective import OWN, Loss, Objective, divided, objective_of

FACTORS, SCALE = "lora", "scale"
SCALE_PATH = f"{OWN}/{FACTORS}/{SCALE}"  # a number for `used_params`; it has no gradient and must not decay


def low_rank(*, objective: Objective | Loss, lora: LoraConfig) -> Objective:
    """The objective with LoRA's factors, which are trained among its own parameters.

    Bind `adamw.trained = ["objective"]` as well: it freezes the model's own parameters, so that they have neither
    moments nor, in a step, gradients. Checkpoints hold the kernels with the factors merged (`averages.used_params`).

    Args:
      objective: what is minimised.
      lora: which kernels, and how.

    Raises:
      InputError: (before anything is compiled) a target that matches no kernel.
    """
    inner = objective_of(objective)

    def init(model: Network, params: Any, key: jax.Array) -> tuple[Any, Any]:
        leaves_key, key = jax.random.split(key)
        leaves = fresh_factors(params, lora, leaves_key)
        added, state = inner.init(model, joined(params, leaves), key)
        return {**added, FACTORS: leaves | {SCALE: jnp.float32(lora.scale)}}, state

    def loss(model: Network, params: Any, state: Any, batch: Any, rng: jax.Array) -> Any:
        base, leaves, rest = _parted(params)
        with with_lora(lora, deterministic=False):
            return inner.loss(model, joined(base, leaves) | rest, state, batch, rng)

    return Objective(loss, init, inner.load, inner.check)


def fresh_factors(params: Any, lora: LoraConfig, key: jax.Array) -> Any:
    """The leaves of `lora_params`, with logical axis names where the kernels have them: they are split as these."""
    boxes = flatten_dict(params, sep="/")
    leaves = flatten_dict(adapter(lora_params(nn.meta.unbox(params), lora, key)), sep="/")

    def boxed(path: str, leaf: Any) -> Any:
        kernel = boxes[f"{path.rpartition('/')[0]}/{KERNEL}"]
        if not isinstance(kernel, nn.LogicallyPartitioned):
            return leaf
        *stack, inputs, outputs = kernel.names
        names = (*stack, inputs, None) if path.endswith(A) else (*stack, None, outputs)
        return nn.LogicallyPartitioned(leaf, names)

    return unflatten_dict({path: boxed(path, leaf) for path, leaf in leaves.items()}, sep="/")


def with_factors_merged(params: Any) -> Any:
    """The parameters, those factors of `low_rank` that they hold merged into the model's kernels; traceable."""
    if FACTORS not in params.get(OWN, {}):
        return params
    base, leaves, _ = _parted(params)
    return merged_at(joined(base, leaves), params[OWN][FACTORS][SCALE]) | {OWN: params[OWN]}


def _parted(params: Any) -> tuple[Any, Any, Any]:
    """The model's parameters, the factors, and the other parameters of the objective, if any."""
    base, own = divided(params)
    leaves = {name: tree for name, tree in own[OWN][FACTORS].items() if name != SCALE}
    rest = {name: tree for name, tree in own[OWN].items() if name != FACTORS}
    return base, leaves, ({OWN: rest} if rest else {})
