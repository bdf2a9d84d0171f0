"""TensorFlow, TFDS and seqio as jaxret uses them: training input on the CPU, quiet, the accelerators left to JAX."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["seqio", "tf", "tfds"]


@contextmanager
def _silent_stderr() -> Iterator[None]:
    # TensorFlow 2.21 writes its start-up notices to descriptor 2 before any of its log levels counts.
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


@contextmanager
def _uncollected() -> Iterator[None]:
    # The garbage collector looks again and again through modules that stay: an eighth of the time of these imports.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _silent_stderr(), _uncollected():
    import seqio
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")
if not sys.stderr.isatty():
    tfds.disable_progress_bar()
