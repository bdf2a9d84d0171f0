"""Several processes of one job."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxret.errors import InputError

FAILED = -1


class OtherFailed(InputError):
    """Another process of the job has failed."""


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

    An error in one ends all of them: the others hear of it where they `meet` next, the end at the latest.

    Args:
      distributed: whether to `join_processes`; else this process is the only one.

    Raises:
      OtherFailed: in the processes that did not fail themselves.
    """
    if not distributed:
        yield 0, 1
        return
    join_processes()
    try:
        yield jax.process_index(), jax.process_count()
        meet("the end")
    except OtherFailed:
        raise
    except BaseException:
        with suppress(Exception):  # that the job fails is known here
            _met(FAILED)
        raise


def meet(place: str) -> None:
    """Waits until every process has come so far; raises OtherFailed where one of them cannot.

    Work on which processes depend, such as an exchange of arrays, is begun after a meeting: nobody waits there for one
    that has failed.
    """
    if jax.process_count() > 1:
        _met(zlib.crc32(place.encode()) >> 1)


def _met(place: int) -> None:
    places = multihost_utils.process_allgather(np.int32(place))
    failed = np.flatnonzero(places == FAILED).tolist()
    if failed:
        fix = "Its own message says why; mend that and start all of them again."
        raise OtherFailed("--distributed", f"process {failed[0]} has failed", fix)
    if (places != place).any():
        raise RuntimeError("the processes are at different places of the work")


def _number(variable: str) -> int | None:
    return int(os.environ[variable]) if variable in os.environ else None
