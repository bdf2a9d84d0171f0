"""Exact MaxSim of queries of many lengths, each batch padded for itself and all to the longest of all: the same bits.

    make setup .venv/weights
    .venv/bin/python benchmarks/query_lengths.py --data FOLDER --split test --documents 240 --queries 1024

Token vectors of a BEIR folder's first passages and first judged queries, from all-MiniLM-L6-v2 or --model. The search
is in float32, without a scan in bfloat16.
"""

import os
from functools import partial
from statistics import median

from token_vectors import first_vectors, in_turn, options

from jaxret.search import exact
from jaxret.search import query_batches as batching

EIGHT = batching.LENGTH


def main() -> None:
    parser = options(__doc__, queries=1024)
    parser.add_argument("--documents", type=int, default=240, help="so many passages, the first ones")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    encoder, corpus, queries = first_vectors(args, args.documents)
    lengths = queries.needed("tokens").lengths
    print(f"{len(queries)} queries of {lengths.min()} to {lengths.max()} tokens, {len(corpus)} passages", flush=True)
    exact.REDUCED.clear()
    search = exact.ExactSearch("multi_vector", corpus, encoder.mesh, min(100, len(corpus)))
    forms = {"each batch for itself": EIGHT, "all to the longest": -(-int(lengths.max()) // EIGHT) * EIGHT}
    times = in_turn(search, queries, forms, partial(setattr, batching, "LENGTH"), args.rounds)
    for form, (first, *seconds) in times.items():
        print(f"{form}: {median(seconds):.2f} s, the first call {first:.2f} s")
    print(f"the same bits; {len(os.sched_getaffinity(0))} cores, medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
