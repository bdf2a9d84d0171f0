"""Embedding texts of mixed lengths beside sentence-transformers, same weights and dtype, in one interleaved run.

    make bench-setup
    .venv/bin/python benchmarks/encode_vs_peers.py
    taskset -c 0 .venv/bin/python benchmarks/encode_vs_peers.py      # one core

all-MiniLM-L6-v2 and the English XQuAD: every second passage and every tenth question, shuffled. Each system has a
process of its own; the peer's batch size is the best of four. Ours runs twice: the first process compiles, the second
one, which is measured, starts from the compile cache.
"""

import argparse
import json
import os
import random
import tempfile
from pathlib import Path

import numpy as np
from processes import ENVIRONMENTS, HERE, Process, compared, minilm

from jaxret.data.beir import BeirFolder


def mixed_texts() -> list[str]:
    data = BeirFolder(HERE.parent / "data" / "xquad-en")
    texts = data.corpus.texts[::2] + data.queries.texts[::10]
    random.Random(0).shuffle(texts)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--environments", type=Path, default=HERE.parent, help="the folder that holds .venv and .venv-st"
    )
    args = parser.parse_args()
    weights = minilm()
    texts = mixed_texts()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAXRET_CACHE"] = folder
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps(texts))

        def started(name: str, dtype: str) -> Process:
            vectors = Path(folder) / f"{name}.npy"
            return Process(
                args.environments / ENVIRONMENTS[name], "encode_peer.py", name, dtype, weights, path, vectors
            )

        for dtype in ("float32", "bfloat16"):
            fresh = started("jaxret", dtype)
            print(f"{dtype:9} jaxret, nothing compiled yet: {fresh.setting}", flush=True)
            fresh.close()
            systems = {name: started(name, dtype) for name in ENVIRONMENTS}
            compared(systems, args.rounds, f"{dtype:9}")
            ours, theirs = (np.load(Path(folder) / f"{name}.npy") for name in ENVIRONMENTS)
            print(f"{dtype:9} largest difference {np.abs(ours - theirs).max():.1e}", flush=True)
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {len(texts)} texts, medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
