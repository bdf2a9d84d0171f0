"""A training step beside sentence-transformers, same weights, ids and dtype, in one interleaved run.

    make bench-setup
    .venv/bin/python benchmarks/train_vs_peers.py
    taskset -c 0 .venv/bin/python benchmarks/train_vs_peers.py      # one core

all-MiniLM-L6-v2, 32 pairs of 128 tokens each from the English XQuAD, InfoNCE, AdamW, clipping, no dropout; plain
(MultipleNegativesRankingLoss), with gradient caching (CachedMultipleNegativesRankingLoss), and with 16 rows of each
text that jaxret does not compute again (the same peer). Each system has a process of its own and the best of three
chunk sizes. The memory is the most that a process held during a step.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from processes import ENVIRONMENTS, HERE, Process, compared, minilm

from jaxret.data.beir import BeirFolder
from jaxret.data.pretrained_tokenizer import load_tokenizer


def full_rows(weights: Path, pairs: int, length: int) -> np.ndarray:
    """int32 [2 pairs length]: the first tokens of passages that have as many."""
    tokenizer = load_tokenizer(weights)
    rows = tokenizer.encode(BeirFolder(HERE.parent / "data" / "xquad-en").corpus.texts)
    room = length - len(tokenizer.begin) - len(tokenizer.end)
    kept = [[*tokenizer.begin, *row[:room], *tokenizer.end] for row in rows if len(row) >= room]
    return np.array(kept[: 2 * pairs], np.int32).reshape(2, pairs, length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--ways", nargs="+", default=["plain", "cached", "kept_16"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--environments", type=Path, default=HERE.parent, help="holds .venv and .venv-st")
    args = parser.parse_args()
    weights = minilm()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAXRET_CACHE"] = folder
        ids = Path(folder) / "ids.npy"
        np.save(ids, full_rows(weights, args.pairs, args.length))
        for way in args.ways:
            for dtype in args.dtypes:
                systems = {
                    name: Process(args.environments / place, "train_peer.py", name, dtype, way, weights, ids)
                    for name, place in ENVIRONMENTS.items()
                }
                compared(systems, args.rounds, f"{way:7} {dtype:9}")
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {args.pairs} pairs of {args.length} tokens, medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
