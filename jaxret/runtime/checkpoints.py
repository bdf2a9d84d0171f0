"""Checkpoints of a run: parameters, the rest of the training state, and the position in the data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, LatestN

from jaxret.errors import InputError

NO_CHECKPOINT, TRAIN_FIRST = "holds no checkpoint", "Train the model first (jaxret train)."


class Checkpoints:
    """The folder `workdir/checkpoints/<step>`. A step is there whole or not at all.

    Args:
      folder: where the steps lie.
      keep: how many of the latest steps stay, besides step 0, the untrained model; None keeps all.
      read_only: leave the folder alone; unfinished steps, perhaps of a training that goes on, are cleared otherwise.
    """

    def __init__(self, folder: str | Path, *, keep: int | None = None, read_only: bool = False):
        kept = [LatestN(keep), CustomSteps([0])]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(kept),
            enable_async_checkpointing=False,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
            save_interval_steps=0 if read_only else 1,
        )
        self.folder = Path(folder).absolute()
        if read_only and not self.folder.is_dir():
            raise InputError(self.folder, NO_CHECKPOINT, TRAIN_FIRST)
        handlers = {"params": ocp.StandardCheckpointHandler(), "rest": ocp.StandardCheckpointHandler()}
        handlers["position"] = ocp.JsonCheckpointHandler()
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """Steps that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, params: Any, rest: Any, position: dict[str, Any]) -> None:
        """Writes one step: the parameters, the rest of the state (a pytree), the data position (JSON)."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                rest=ocp.args.StandardSave(rest),
                position=ocp.args.JsonSave(position),
            ),
        )
        self._manager.wait_until_finished()

    def restore(self, step: int, params: Any, rest: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Reads one step into the shapes, dtypes and shardings of the abstract trees given.

        Raises:
          InputError: the step's parameters do not fit the model, or a file of it is damaged.
        """
        with self._readable(step):
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
        with self._readable(step):
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
        with self._readable(step):
            self._check(step, "params", params)
            restored = self._manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(params)))
        return restored["params"], step

    def close(self) -> None:
        """Ends the manager's threads."""
        self._manager.close()

    @contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        """Turns orbax's many errors about damaged files into one that names the file."""
        try:
            yield
        except (InputError, jax.errors.JaxRuntimeError):
            raise
        except Exception as error:
            named = re.findall(rf"{re.escape(str(self.folder / str(step)))}[\w./-]*", str(error))
            place = max(named, key=len, default=self.folder / str(step))
            fix = "Remove the step's folder; training continues from the one before it."
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


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        "/".join(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in path): tuple(
            leaf.shape
        )
        for path, leaf in leaves
    }
