"""Several processes of one job."""

from __future__ import annotations

import os
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
import numpy as np
from jax._src import distributed as job  # the client of the job's store of keys and values has no public name
from jax.experimental import multihost_utils

from jaxret.errors import InputError

FAILED = "jaxret/failed"  # of that store: why, by the number of a process
LOOK, GRACE = 1.0, 3.0  # seconds from look to look; to end by an error of one's own, when another has failed
LEAVE, LEAVE_LAST = 5.0, 10.0  # seconds to leave the job; the first process ends the others' connections


class OtherFailed(InputError):
    """Another process of the job has failed."""

    def __init__(self, number: int, why: str):
        fix = "Its own messages say more; mend that and start all of them again."
        super().__init__("--distributed", f"process {number} has failed: {why.rstrip(' .:')}", fix)


def join_processes() -> None:
    """Makes this process one of its job's; before any other use of JAX.

    They find each other as `jax.distributed` does (TPU pods, Slurm, Open MPI, Kubernetes), or by the environment:
    JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      InputError: no other process is known, or a number is none.
    """
    fix = "Set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or leave the option out."
    try:
        jax.distributed.initialize(num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID"))
    except (ValueError, RuntimeError) as error:
        raise InputError("--distributed", f"the job's processes were not found: {error}", fix) from None


@contextmanager
def one_job(distributed: bool) -> Iterator[tuple[int, int]]:
    """Work of one process, or of all that join; gives this one's number and how many there are.

    An error in one ends all of them within seconds: a thread of each looks out for it, prints which process failed and
    why, and ends its own with code 2, even where that waits for the one that failed and Python cannot interrupt it.

    Args:
      distributed: whether to `join_processes`; else this process is the only one.

    Raises:
      OtherFailed: an exchange with another process broke off since that has failed.
    """
    if not distributed:
        yield 0, 1
        return
    join_processes()
    over = threading.Event()
    threading.Thread(target=_watch, args=(over,), name="watch", daemon=True).start()
    try:
        yield jax.process_index(), jax.process_count()
        meet("the end")
    except SystemExit as end:
        if end.code:
            _tell(end)
        raise
    except jax.errors.JaxRuntimeError as error:
        other = None
        with suppress(RuntimeError):
            other = _failed()
        if other:
            _end_soon(2)
            raise other from None
        _tell(error)
        raise
    except BaseException as error:
        _tell(error)
        raise
    finally:
        over.set()


def meet(place: str) -> None:
    """Waits until every process has come so far: work on which processes depend, such as a file, is done by then."""
    if jax.process_count() > 1:
        mine = zlib.crc32(place.encode()) >> 1
        if (multihost_utils.process_allgather(np.int32(mine)) != mine).any():
            raise RuntimeError("the processes are at different places of the work")


def _tell(error: BaseException) -> None:
    """Lets the other processes know that this one fails, which then leaves the job with them."""
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    with suppress(Exception):  # that this process fails is known already
        _store().key_value_set(f"{FAILED}/{job.global_state.process_id}", f"{kind}{error}")
    _end_soon(2 if isinstance(error, InputError) else 1)


def _failed() -> OtherFailed | None:
    """The process that has failed, the first of several; raises RuntimeError where the job's store is gone."""
    found = {int(key.rpartition("/")[2]): why for key, why in _store().key_value_dir_get(FAILED)}
    found.pop(job.global_state.process_id, None)
    return OtherFailed(min(found), found[min(found)].partition("\n")[0]) if found else None


def _store() -> Any:
    """The job's store of keys and values."""
    return job.global_state.client


def _watch(over: threading.Event) -> None:
    """Ends this process where another has failed, unless its own work is over first."""
    while not over.wait(LOOK):
        try:
            other = _failed()
        except RuntimeError:  # then JAX ends this process
            return
        if other and not over.wait(GRACE):
            print(f"jaxret: {other}", file=sys.stderr)
            _end_soon(2)
            with suppress(Exception):
                jax.distributed.shutdown()  # waits for the others
            _end(2)


def _end_soon(code: int) -> None:
    """Ends this process, if it does not end before: leaving the job, it may wait for one that was killed."""
    last = threading.Timer(LEAVE if job.global_state.process_id else LEAVE_LAST, _end, (code,))
    last.daemon = True
    last.start()


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _number(variable: str) -> int | None:
    return int(os.environ[variable]) if variable in os.environ else None
