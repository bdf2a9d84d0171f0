"""Trains a tiny model, so that a test can kill it and start it again: python tiny_run.py '{settings as JSON}'.

Prints the number and the hash of each batch that it takes.
"""

import functools
import hashlib
import json
import sys
import time

import jax

from jaxret.data.batches import training_batches
from jaxret.data.tasks import Source
from jaxret.data.text import TextConfig
from jaxret.nn.config import EncoderConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.train import interrupts
from jaxret.train.loop import train
from jaxret.train.objectives.contrastive import contrastive
from jaxret.train.optimizers import adamw

HEADS = ("dense", "lexical", "multi_vector")


def batches(*, start, pause, **settings):
    for number, batch in enumerate(training_batches(start=start, train_group_size=1, **settings), start):
        digest = hashlib.sha256(b"".join(batch[name].tobytes() for name in sorted(batch))).hexdigest()
        print(f"batch {number} {digest}", flush=True)
        time.sleep(pause)
        yield batch


def main(workdir, folder, vocabulary, steps, cache, distributed=None, schedule=None, pause=0, chunk_rows=0):
    interrupts.AGREED_EVERY = 2
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if distributed:
        jax.distributed.initialize(**distributed)
    encoder = EncoderConfig(vocab_size=0, width=16, num_layers=1, num_heads=2, mlp_width=12, dropout=0.1)
    ones = dict.fromkeys(HEADS, 1.0)
    train(
        workdir,
        retriever=RetrieverConfig(encoder, heads=HEADS, dense_layers=(8,), token_layers=(6,)),
        text=TextConfig(query_max_len=10, passage_max_len=20),
        vocabulary=vocabulary,
        batches=functools.partial(batches, sources=(Source(folder),), pause=pause),
        objective=functools.partial(contrastive, temperature=ones, weight=ones),
        optimizer=lambda steps: adamw(schedule or steps, learning_rate=0.01),
        steps=steps,
        global_batch_size=8,
        seed=5,
        chunk_rows=chunk_rows,
        save_interval_steps=2,
        log_period=1,
    )


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
