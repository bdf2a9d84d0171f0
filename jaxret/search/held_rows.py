"""Dense documents in memory, so that a scan in bfloat16 reads no more than it needs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxret.ops.block_scores import Rows
from jaxret.ops.halves import Halves, halved, restored
from jaxret.ops.topk import EMPTY
from jaxret.runtime.heap import give_back
from jaxret.search.blocks import Group
from jaxret.search.room import aligned

BLOCKS = 8  # of a stretch

Stored = Rows | Halves


class Stretch:
    """Some blocks one after another; float32 as `Halves`, in as many bytes, what is stored in fewer as it is.

    Attributes:
      positions: of the documents, EMPTY for padding.
      stored: the documents, of numpy.
      scanned: the same, or what is near them in bfloat16, on the device once `sealed`.
    """

    def __init__(self, like: Stored, size: int):
        def empty(x: np.ndarray) -> np.ndarray:
            return aligned((BLOCKS * size, *x.shape[1:]), x.dtype)

        self.stored, self.positions = jax.tree.map(empty, like), np.full(BLOCKS * size, EMPTY, np.int32)
        self.scanned: Rows | None = None

    def sealed(self, stop: int) -> None:
        """No more blocks come than those up to here."""
        self.stored, self.positions = jax.tree.map(lambda x: x[:stop], (self.stored, self.positions))
        self.scanned = jax.device_put(Rows(self.stored.high) if isinstance(self.stored, Halves) else self.stored)
        give_back()


class HeldRows:
    """A block in a stretch.

    Attributes:
      stretch: which.
      place: of its documents there.
    """

    def __init__(self, stretch: Stretch, place: slice):
        self.stretch, self.place = stretch, place

    @property
    def positions(self) -> np.ndarray:
        """Of its documents, ascending, `[c]`; EMPTY for padding."""
        return self.stretch.positions[self.place]

    @property
    def stored(self) -> Stored:
        """Its documents, of numpy."""
        return jax.tree.map(lambda x: x[self.place], self.stretch.stored)

    def __call__(self) -> Group:
        """The documents as `dense_groups` made them."""
        return Group(jax.tree.map(lambda x: x[None], _decoded(self.stored)), self.positions[None])


class Shelf:
    """Blocks on one CPU.

    Attributes:
      stretches: of them.
    """

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self._stop = 0

    def __call__(self, group: Group) -> HeldRows:
        """Takes in one block more."""
        rows, positions = jax.tree.map(lambda x: np.asarray(x)[0], group)
        stored = halved(np.ascontiguousarray(rows.vectors)) if rows.vectors.dtype == np.float32 else rows
        if not self.stretches or self._stop == len(self.stretches[-1].positions):
            self.sealed()
            self.stretches.append(Stretch(stored, len(positions)))
            self._stop = 0
        stretch, place = self.stretches[-1], slice(self._stop, self._stop + len(positions))
        stretch.positions[place] = positions
        jax.tree.map(lambda to, of: to.__setitem__(place, of), stretch.stored, stored)
        self._stop = place.stop
        return HeldRows(stretch, place)

    def sealed(self) -> None:
        """No more blocks come, in the last stretch at least."""
        if self.stretches:
            self.stretches[-1].sealed(self._stop)


@jax.jit
def _decoded(stored: Stored) -> Rows:
    return decoded(stored)


def decoded(stored: Any) -> Rows:
    """A block's documents, of jax."""
    return Rows(restored(stored)) if isinstance(stored, Halves) else stored
