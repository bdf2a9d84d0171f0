"""Several processes of one job."""

from __future__ import annotations

import os

import jax

from jaxret.errors import InputError


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


def _number(variable: str) -> int | None:
    return int(os.environ[variable]) if variable in os.environ else None
