"""Exact MaxSim in float32 with a scan in bfloat16 and without it: the same bits, in how much time.

    make setup .venv/weights
    .venv/bin/python benchmarks/reduced_scan.py --data FOLDER --split test --documents 3000 --queries 64

Token vectors of a BEIR folder's first passages and first judged queries, from all-MiniLM-L6-v2 or --model.
"""

import os
from functools import partial
from statistics import median

from token_vectors import first_vectors, in_turn, options

from jaxret.search.exact import ExactSearch
from jaxret.search.reduced_maxsim import ReducedMaxSim


def main() -> None:
    parser = options(__doc__, queries=64)
    parser.add_argument("--documents", type=int, default=3000, help="so many passages, the first ones")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    encoder, corpus, queries = first_vectors(args, args.documents)
    tokens = corpus.needed("tokens").values
    print(f"{len(queries)} queries, {len(corpus)} passages, {len(tokens)} tokens x {tokens.shape[1]}", flush=True)
    for k in (10, 100):
        search = ExactSearch("multi_vector", corpus, encoder.mesh, k)
        reduced = search._searched
        assert isinstance(reduced, ReducedMaxSim), "this CPU has no products of bfloat16, or the corpus is too small"
        forms = {"scan in bfloat16": reduced, "float32": reduced._plain}
        times = in_turn(search, queries, forms, partial(setattr, search, "_searched"), args.rounds)
        seconds = {form: median(each[1:]) for form, each in times.items()}
        words = ", ".join(f"{form} {value:.2f} s" for form, value in seconds.items())
        ratio = seconds["float32"] / seconds["scan in bfloat16"]
        more = (
            f"{reduced.rescored / len(queries):.0f} passages a query scored again, {reduced.repeated} queries repeated"
        )
        print(f"top {k}: {words}, {ratio:.2f} x; {more}; the same bits", flush=True)
    print(f"{len(os.sched_getaffinity(0))} cores, medians of {args.rounds} rounds")


if __name__ == "__main__":
    main()
