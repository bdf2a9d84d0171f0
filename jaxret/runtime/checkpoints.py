"""Checkpoints of a run: parameters, the rest of the training state, and the position in the data."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN, PreservationPolicy
from orbax.checkpoint.path import atomicity

from jaxret.errors import InputError
from jaxret.runtime import checksums

NO_CHECKPOINT, TRAIN_FIRST = "holds no checkpoint", "Train the model first (jaxret train)."
ASIDE = ".damaged"  # ending of a step's folder that nothing reads any more
HOURS = 4 * 3600  # after which a write in the background counts as stuck
SLICE_BYTES = 2**20  # devices with copies of an array share its writing in slices that large: each is compiled

logger = logging.getLogger(__name__)
# Orbax has a public setting for it only in a handler that replaces its own, which it warns about on every import.
ocp.type_handlers.get_type_handler(jax.Array)._min_slice_bytes_for_replica_parallel = SLICE_BYTES


class Checkpoints:
    """The folder `workdir/checkpoints/<step>`. A step is there whole or not at all, with checksums of its files.

    Args:
      folder: where the steps lie.
      keep: how many of the latest steps stay, besides the pinned ones; None keeps all.
      read_only: leave the folder alone; unfinished steps, perhaps of a training that goes on, are cleared otherwise.

    Attributes:
      pinned: steps that stay, whatever comes after them: step 0, the untrained model, at first.
    """

    def __init__(self, folder: str | Path, *, keep: int | None = None, read_only: bool = False):
        self.pinned = {0}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(keep), _Pinned(self.pinned)]),
            enable_async_checkpointing=not read_only,
            async_options=ocp.AsyncOptions(timeout_secs=HOURS),
            temporary_path_class=_Sealed,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
            save_interval_steps=0 if read_only else 1,
            lightweight_initialize=True,
        )
        self._whole: int | None = None
        self.folder = Path(folder).absolute()
        if read_only and not self.folder.is_dir():
            raise InputError(self.folder, NO_CHECKPOINT, TRAIN_FIRST)
        handlers = {"params": ocp.StandardCheckpointHandler(), "rest": ocp.StandardCheckpointHandler()}
        handlers["position"] = ocp.JsonCheckpointHandler()
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def whole_step(self) -> int | None:
        """The latest step whose files are as they were written; None where there is no step.

        Later ones are set aside as `<step>.damaged`, each with a warning that names its first damaged file.

        Raises:
          InputError: steps, but none that is whole.
        """
        found = self._whole_step() if jax.process_index() == 0 else -1
        if jax.process_count() > 1:
            found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        steps = self.steps()
        self._manager.reload()
        if steps and found < 0:
            raise InputError(self.folder, "every checkpoint is damaged", "Restore a copy, or use a new workdir.")
        self._whole = found if steps else None
        return self._whole

    def save(self, step: int, params: Any, rest: Any, position: dict[str, Any], *, background: bool = False) -> None:
        """Writes one step: the parameters, the rest of the state (a pytree), the data position (JSON).

        Args:
          step: its number.
          params, rest: copied before this returns, so that their memory may be used again.
          position: where the data goes on.
          background: return as soon as all is copied. An error of the write comes out of the next `save` or `wait`.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                rest=ocp.args.StandardSave(rest),
                position=ocp.args.JsonSave(position),
            ),
        )
        if not background:
            self.wait()

    def wait(self) -> None:
        """Until what was saved is on the disk and what is no longer kept is gone."""
        self._manager.wait_until_finished()

    def restore(self, step: int, params: Any, rest: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Reads one step into the shapes, dtypes and shardings of the abstract trees given.

        Raises:
          InputError: the step's parameters do not fit the model, or a file of it is damaged.
        """
        with self._readable(step, ("params", "rest", "position")):
            self._check(step, "params", params)
            self._check(step, "rest", rest)
            found = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(params),
                    rest=ocp.args.StandardRestore(rest),
                    position=ocp.args.JsonRestore(),
                ),
            )
        return found["params"], found["rest"], found["position"]

    def position(self, step: int) -> dict[str, Any]:
        """The data position of one step; raises InputError where it cannot be read."""
        with self._readable(step, ("position",)):
            found = self._manager.restore(step, args=ocp.args.Composite(position=ocp.args.JsonRestore()))
        return found["position"]

    def restore_params(self, params: Any, step: int | None = None) -> tuple[Any, int]:
        """Reads the parameters of one step (the latest by default) and says which step it was.

        Raises:
          InputError: no such step, its parameters do not fit the model, or a file of it is damaged.
        """
        steps = self.steps()
        if not steps:
            raise InputError(self.folder, NO_CHECKPOINT, TRAIN_FIRST)
        step = steps[-1] if step is None else step
        if step not in steps:
            raise InputError(self.folder, f"no step {step}", f"Choose one of {', '.join(map(str, steps))}.")
        with self._readable(step, ("params",)):
            self._check(step, "params", params)
            restored = self._manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(params)))
        return restored["params"], step

    def close(self) -> None:
        """Waits for what is being saved and ends the manager's threads."""
        self._manager.close()

    def _whole_step(self) -> int:
        for step in reversed(self.steps()):
            folder = self.folder / str(step)
            file = self._damaged(step)
            if file is None:
                return step
            logger.warning("%s: damaged; checkpoint %d is set aside, the one before it is tried", file, step)
            shutil.rmtree(f"{folder}{ASIDE}", ignore_errors=True)
            folder.rename(f"{folder}{ASIDE}")
        return -1

    def _damaged(self, step: int, items: Sequence[str] = ("",)) -> Path | None:
        """A damaged file of a step's items; its checksums, where it has none but a step that was saved earlier does."""
        folder, earlier = self.folder / str(step), (each for each in self.steps() if each < step)
        sums = folder / checksums.SUMS
        if not sums.exists() and any((self.folder / str(each) / checksums.SUMS).exists() for each in earlier):
            return sums
        return checksums.damaged(folder, items)

    @contextmanager
    def _readable(self, step: int, items: Sequence[str]) -> Iterator[None]:
        """Checks the files of a step's items; turns orbax's many errors about damaged ones into one with the name."""
        folder, fix = self.folder / str(step), "Choose another step; training goes on from the one before it."
        self.wait()
        if step != self._whole and (file := self._damaged(step, items)):
            raise InputError(file, "the checkpoint is damaged: this file is not as it was written", fix)
        try:
            yield
        except (InputError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:
            named = re.findall(rf"{re.escape(str(folder))}[\w./-]*", str(error))
            place = max(named, key=len, default=folder)
            problem = f"the checkpoint is damaged or cannot be read ({type(error).__name__}: {str(error)[:60]}...)"
            raise InputError(place, " ".join(problem.split()), fix) from error

    def _check(self, step: int, item: str, expected: Any) -> None:
        """Compares names and shapes before anything is read."""
        saved, wanted = _shapes(self._manager.item_metadata(step)[item]), _shapes(expected)
        if wanted and not saved:
            raise FileNotFoundError(self.folder / str(step) / item / "_METADATA")
        parts = {
            "only in the checkpoint": sorted(saved.keys() - wanted.keys()),
            "only in the model": sorted(wanted.keys() - saved.keys()),
            "of another shape": [
                f"{name} {saved[name]} in the checkpoint, {wanted[name]} in the model"
                for name in sorted(saved.keys() & wanted.keys())
                if saved[name] != wanted[name]
            ],
        }
        problems = [f"{what}: {', '.join(names)}" for what, names in parts.items() if names]
        if problems:
            fix = "Use the configuration that made the checkpoint, or a new workdir."
            raise InputError(self.folder / str(step), f"does not fit the model; {'; '.join(problems)}", fix)


class _Pinned(PreservationPolicy):
    """Preserves the steps of a set, which may change."""

    def __init__(self, steps: set[int]):
        self._steps = steps

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        return [checkpoint.step in self._steps for checkpoint in checkpoints]


class _Sealed(atomicity.AtomicRenameTemporaryPath):
    """A step's folder, which gets its checksums before it gets its name; and the folders of its items."""

    async def finalize(self) -> None:
        if self._checkpoint_metadata_store:
            await asyncio.to_thread(self._checkpoint_metadata_store.wait_until_finished)
        if not self.get_final().parent.name.endswith(atomicity.TMP_DIR_SUFFIX):
            await asyncio.to_thread(checksums.seal, str(self.get()))
        os.rename(self.get(), self.get_final())


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "/".join(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path): tuple(
            leaf.shape
        )
        for path, leaf in leaves
    }
