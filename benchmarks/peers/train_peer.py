"""One system that trains all-MiniLM-L6-v2 by InfoNCE, one step each time it is told to.

Run by benchmarks/train_vs_peers.py as `python train_peer.py LIBRARY DTYPE WAY WEIGHTS IDS.npy`; the way is plain,
cached, or kept_16, where jaxret keeps 16 rows of each text. It tries its sizes of chunks, and begins again with the
best one, so that its memory is that of one size.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from peak import peak_mib

if sys.argv[1] == "jaxret":
    from jaxret.runtime.heap import compute_in_turn, give_back, keep_heap

    keep_heap()
    compute_in_turn()
library, dtype, way, weights, ids, *chosen = sys.argv[1:]
IDS = np.load(ids)  # [2 b l]: queries and passages, every row full
CHUNKS = tuple(map(int, chosen)) or ((0,) if way == "plain" else (4, 8, 16))
KEPT = int(way.removeprefix("kept_")) if way.startswith("kept_") else 0
SCALE = 20.0


def peak_since() -> float:
    """The most memory, in MiB, that this process has held since it was asked last."""
    found = peak_mib()
    Path("/proc/self/clear_refs").write_text("5")
    return found


def ours(rows: int):
    """Jaxret's step, chunks of so many rows."""
    import dataclasses
    import functools

    from jaxret.runtime.compile_cache import use_compile_cache
    from jaxret.runtime.mesh import device_mesh
    from jaxret.train.objectives.contrastive import contrastive
    from jaxret.train.optimizers import adamw
    from jaxret.train.program import global_batch, step_program
    from jaxret.train.start import described, first_state

    use_compile_cache()
    found = described(None, None, "", weights, dtype, "auto")
    encoder = dataclasses.replace(found.model.config.encoder, dropout=0.0)
    config = dataclasses.replace(found.model.config, encoder=encoder)
    model = dataclasses.replace(found.model, config=config, chunk_rows=rows, kept_rows=KEPT)
    found = dataclasses.replace(found, model=model)
    objective = functools.partial(contrastive, temperature={"dense": 1 / SCALE}, weight={"dense": 1.0})
    mesh, optimizer = device_mesh((1, 1, 1)), adamw(1000, learning_rate=2e-5, warmup=0.0)
    step, abstract = step_program(model, objective, optimizer, 0, mesh)
    state = first_state(found, objective, optimizer, 0, abstract)
    pairs = IDS.shape[1]
    keys = np.arange(pairs, dtype=np.int32)[:, None]
    batch = global_batch({"query": IDS[0], "passage": IDS[1][:, None], "passage_key": keys}, mesh)

    def run() -> float:
        nonlocal state
        state, metrics = step(state, batch)
        return float(metrics["loss"])

    return run


def theirs(rows: int):
    """sentence-transformers' losses and torch's fused AdamW; bfloat16 by autocast, as its trainer does."""
    import torch
    from sentence_transformers import SentenceTransformer, losses

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = SentenceTransformer(weights, device="cpu", config_kwargs=changes)
    if rows:
        loss = losses.CachedMultipleNegativesRankingLoss(model, scale=SCALE, mini_batch_size=rows)
    else:
        loss = losses.MultipleNegativesRankingLoss(model, scale=SCALE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01, fused=True)
    features = [
        {"input_ids": torch.tensor(side, dtype=torch.long), "attention_mask": torch.ones(side.shape, dtype=torch.long)}
        for side in IDS
    ]
    model.train()

    def run() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            value = loss([dict(each) for each in features], None)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(value)

    return run


def seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


makers = {"jaxret": ours, "sentence_transformers": theirs}
steps = {rows: makers[library](rows) for rows in CHUNKS}
losses_ = {rows: step() for rows, step in steps.items()}
if len(CHUNKS) > 1:
    best = min(steps, key=lambda rows: min(seconds(steps[rows]) for _ in range(2)))
    os.execv(sys.executable, [sys.executable, *sys.argv, str(best)])
(rows,) = CHUNKS
if library == "jaxret":
    give_back()  # as `jaxret train` does after its first step
peak_since()
print(f"ready chunks of {rows or 'all'}, first loss {losses_[rows]:.4f}", flush=True)
for _ in sys.stdin:
    print(seconds(steps[rows]), peak_since(), flush=True)
