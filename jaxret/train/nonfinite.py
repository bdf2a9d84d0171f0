"""Steps whose loss or gradient was not finite: a run of them ends the run, with what is to blame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.runtime.mesh import traced_on
from jaxret.train.step import TrainState, gradient_of

LAG = 2  # steps that may run while an earlier one's outcome is awaited
SHOWN = 5  # names in a message


class Watch:
    """Ends a run after too many steps in a row without effect.

    Args:
      most: so many in a row end it.
      diagnosis: `(state, batch) -> findings` of the step that the state has behind it, see `diagnosis_program`.
    """

    def __init__(self, most: int, diagnosis: Callable[[TrainState, Any], Mapping[str, Any]]):
        self._most, self._diagnosis = most, diagnosis
        self._waiting: deque[jax.Array] = deque()

    def look(self, state: TrainState, batch: Any, metrics: Mapping[str, jax.Array], lag: int = LAG) -> None:
        """Takes a step's outcome, and looks at the one `lag` steps before, so that the devices need not wait.

        Raises:
          InputError: `most` steps in a row had no effect.
        """
        self._waiting.append(metrics["skipped_in_a_row"])
        while len(self._waiting) > lag:
            if int(self._waiting.popleft()) >= self._most and (count := int(state.skipped["in_a_row"])):
                raise ended(int(state.step), count, jax.device_get(self._diagnosis(state, batch)))


def diagnosis_program(apply: Any, objective: Any, seed: int, mesh: Mesh) -> Callable[[TrainState, Any], Any]:
    """The jitted findings about the step that a state has behind it, where that step changed nothing.

    They are the `loss`; how many numbers of each leaf are not finite, of the `parameters` and of the `gradient`; and
    for each array of the batch with fractions the `rows` that have such numbers.
    """

    def findings(state: TrainState, batch: dict[str, jax.Array]) -> dict[str, Any]:
        with traced_on(mesh):
            (loss, _), gradient = gradient_of(state, batch, apply, objective, seed, state.step - 1)
            fractions = {name: x for name, x in batch.items() if jnp.issubdtype(x.dtype, jnp.floating)}
            return {
                "loss": loss,
                "parameters": jax.tree.map(_misfits, state.params),
                "gradient": jax.tree.map(_misfits, gradient),
                "rows": {name: ~jnp.isfinite(x.reshape(len(x), -1)).all(1) for name, x in fractions.items()},
            }

    return jax.jit(findings, out_shardings=NamedSharding(mesh, PartitionSpec()))


def ended(step: int, count: int, findings: Mapping[str, Any]) -> InputError:
    """The error that says which steps were not finite, and what was not in the last of them."""
    rows = [f"{name} {row}" for name, found in findings["rows"].items() for row in found.nonzero()[0]]
    parts = [
        f"loss or gradient were not finite in {count} steps in a row ({step - count + 1} to {step}) and had no effect",
        f"the last one's loss is {float(findings['loss'])}",
        f"not finite in its gradient: {_listed(_named(findings['gradient']))}",
        f"in the parameters: {_listed(_named(findings['parameters']))}",
        f"in the batch's rows: {_listed(rows)}",
    ]
    fix = (
        f"Look at batch {step - 1}, the first that train.batches gives with start={step - 1}; lower the learning rate; "
        "or allow more such steps with train.max_nonfinite."
    )
    return InputError(f"step {step}", "; ".join(parts), fix)


def _misfits(x: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(x))


def _named(counts: Any) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(counts)
    named = ((jax.tree_util.keystr(path, simple=True, separator="/"), int(count)) for path, count in leaves)
    return [f"{name} ({count})" for name, count in named if count]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more
