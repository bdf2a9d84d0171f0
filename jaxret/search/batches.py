"""A model over rows of many lengths: batches of like lengths, over the whole mesh, some of them under way at a time."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxret.nn.encoder import unstacked
from jaxret.runtime.mesh import batch_sharding, traced_on
from jaxret.search.lengths import filled_rows, longest_first

# A CPU is fastest with what its caches hold, and compiles a shape in less time than an accelerator does.
BATCH_TOKENS = {"cpu": 512, "gpu": 65536, "tpu": 32768}
LENGTHS_AN_OCTAVE = {"cpu": 8, "gpu": 4, "tpu": 4}
Arrays = tuple[np.ndarray, ...]
logger = logging.getLogger(__name__)


class BatchedModel:
    """A function of parameters and rows of tokens, compiled once for each shape of a batch.

    One CPU device has a batch under way for each core and one more, since a layer is too small to divide among them;
    other devices are one batch ahead of the host.

    Args:
      function: of parameters, arrays `[b l]` and settings; traceable.
      params: placed on the mesh, in the compute dtype.
      mesh: the devices; a batch is split over `data` and `fsdp`. Where they are several processes', all of these make
        the same calls and have the same results.
      batch_tokens: tokens of a batch on one device, padding included; by default what suits the platform.
      programs: what is compiled, by shape; given again for other parameters of the same function, it is used again.

    Attributes:
      shapes: `[rows length]` of the batches compiled so far: one for each of the `fine_lengths` that occur, and those
        of a last batch, whose rows are a power of two.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        params: Any,
        mesh: Mesh,
        batch_tokens: int | None = None,
        programs: dict[Any, Any] | None = None,
    ):
        platform = mesh.devices.flat[0].platform
        self.shapes: set[tuple[int, int]] = set()
        self._function, self._mesh = function, mesh
        self._tokens = batch_tokens or BATCH_TOKENS.get(platform, BATCH_TOKENS["gpu"])
        self._steps = LENGTHS_AN_OCTAVE.get(platform, LENGTHS_AN_OCTAVE["gpu"])
        self._threads = 1 + len(os.sched_getaffinity(0)) if platform == "cpu" and mesh.size == 1 else 0
        self._params = jax.jit(unstacked)(params) if self._threads else params
        self._programs = {} if programs is None else programs

    def run(
        self,
        lengths: Sequence[int],
        arrays: Callable[[np.ndarray, int], Arrays],
        batch_rows: int | None = None,
        **settings: str,
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Numbers of rows and what became of them, on the host; those that fill up the batch come after them.

        Args:
          lengths: of all rows.
          arrays: what the function takes of the rows with these numbers, padded to a length.
          batch_rows: rows of a batch on one device; by default as many as its tokens allow.
          **settings: of the function, static.
        """
        waiting: deque[tuple[np.ndarray, Callable[[], Any]]] = deque()
        with ThreadPoolExecutor(self._threads) if self._threads else nullcontext() as pool:
            for chosen, inputs in self._batches(lengths, arrays, batch_rows):
                waiting.append((chosen, self._begun(pool, self._program(inputs, settings), inputs)))
                if len(waiting) > max(1, self._threads):
                    done, result = waiting.popleft()
                    yield done, result()
            for done, result in waiting:
                yield done, result()

    def _begun(self, pool, program, inputs) -> Callable[[], Any]:
        """What waits for the program's result and brings it to the host."""
        if pool:
            return pool.submit(lambda: jax.device_get(program(self._params, *inputs))).result
        return partial(jax.device_get, program(self._params, *inputs))

    def _batches(self, lengths, arrays, batch_rows) -> Iterator[tuple[np.ndarray, tuple[jax.Array, ...]]]:
        devices, sharding = self._mesh.shape["data"] * self._mesh.shape["fsdp"], batch_sharding(self._mesh)

        def full(length: int) -> int:
            return devices * (batch_rows or max(1, self._tokens // length))

        for length, chosen in longest_first(lengths, full, self._steps):
            size = filled_rows(len(chosen), full(length), devices)
            rows = np.concatenate([chosen, np.repeat(chosen[:1], size - len(chosen))])
            yield chosen, tuple(_placed(x, sharding) for x in arrays(rows, length))

    def _program(self, inputs: tuple[jax.Array, ...], settings: dict[str, str]) -> Callable[..., Any]:
        """Compiled here, not in a thread, where the configuration that the caller has set for his own holds."""
        rows, length = inputs[0].shape
        key = rows, length, *settings.items()
        if key not in self._programs:
            function, mesh = self._function, self._mesh  # not self, whose parameters may be dropped

            def on_mesh(params: Any, *inputs: jax.Array) -> Any:
                with traced_on(mesh):
                    return function(params, *inputs, **settings)

            self.shapes.add((rows, length))
            logger.info("compiling for %d texts of %d tokens, shape number %d", rows, length, len(self.shapes))
            whole = NamedSharding(mesh, PartitionSpec()) if mesh.is_multi_process else None
            self._programs[key] = jax.jit(on_mesh, out_shardings=whole).lower(self._params, *inputs).compile()
        return self._programs[key]


def _placed(rows: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Rows that all processes have, of which each places its own."""
    return jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__)
