"""Our metrics beside pytrec_eval, ir_measures and ranx, in one interleaved run.

    pip install pytrec_eval-terrier ir_measures ranx
    python benchmarks/metrics_vs_peers.py

Synthetic: 2,000 queries with the top 1,000 of 100,000 documents, one or twenty judgements a query; nDCG@10, MAP@100,
R@100, P@10 and reciprocal rank. The document table is in descending order of ids, as our stores are. Every row says
where it starts: from arrays as a search returns them (ranking with trec_eval's ties is part of our time), or from what
the library wants, built beforehand. A peer that is not installed is left out; the differences from pytrec_eval's values
are printed beside the times.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np

from jaxret.eval.judgements import Judgements
from jaxret.eval.metrics import mean_scores
from jaxret.search.runs import Run

MEASURES = ["ndcg@10", "map@100", "R@100", "P@10", "mrr"]
TREC = ["ndcg_cut_10", "map_cut_100", "recall_100", "P_10", "recip_rank"]


def synthetic(queries: int, depth: int, documents: int, judged: int, decimals: int | None):
    random = np.random.default_rng(0)
    ids = [f"D{number:07d}" for number in reversed(range(documents))]
    positions = np.stack([random.choice(documents, depth, replace=False) for _ in range(queries)]).astype(np.int32)
    scores = -np.sort(-random.random((queries, depth), dtype=np.float32), axis=1)
    if decimals is not None:
        scores = np.round(scores, decimals)
    query_ids = [f"Q{number}" for number in range(queries)]
    qrels = {}
    for query, row in zip(query_ids, positions, strict=True):
        chosen = {*random.choice(row, (judged + 1) // 2).tolist(), *random.integers(0, documents, judged // 2).tolist()}
        qrels[query] = {ids[index]: int(random.integers(1, 4)) for index in chosen}
    return query_ids, ids, positions, scores, qrels


def contestants(query_ids, ids, positions, scores, qrels) -> dict[str, Callable[[], list[float]]]:
    """Each gives the means of MEASURES; what is made here is outside the time."""
    run = Run.from_top_k(query_ids, ids, positions, scores)
    judgements = Judgements.of(qrels, ids)
    results = run.to_dict()

    def ours(run: Run) -> list[float]:
        return list(mean_scores(run, judgements, MEASURES).values())

    found: dict[str, Callable[[], list[float]]] = {
        "jaxret, from arrays": lambda: ours(Run.from_top_k(query_ids, ids, positions, scores)),
        "jaxret, from a run": lambda: ours(run),
        "jaxret, from arrays and dict qrels": lambda: list(
            mean_scores(Run.from_top_k(query_ids, ids, positions, scores), qrels, MEASURES).values()
        ),
    }
    import pytrec_eval

    evaluator = pytrec_eval.RelevanceEvaluator(qrels, TREC)

    def trec(results: dict) -> list[float]:
        by_query = evaluator.evaluate(results)
        return [float(np.mean([row[name] for row in by_query.values()])) for name in TREC]

    def dictionaries() -> dict:
        names = np.array(ids, dtype=object)[positions].tolist()
        rows = zip(query_ids, names, scores.tolist(), strict=True)
        return {query: dict(zip(row, values, strict=True)) for query, row, values in rows}

    found["pytrec_eval, from dictionaries"] = lambda: trec(results)
    found["pytrec_eval, from arrays"] = lambda: trec(dictionaries())
    found |= _ir_measures(results, qrels) | _ranx(results, qrels)
    return found


def _ir_measures(results: dict, qrels: dict) -> dict[str, Callable[[], list[float]]]:
    try:
        import ir_measures
    except ImportError:
        return {}
    measures = [ir_measures.parse_measure(name) for name in ("nDCG@10", "AP@100", "R@100", "P@10", "RR")]
    evaluator = ir_measures.pytrec_eval.evaluator(measures, qrels)

    def means() -> list[float]:
        found = evaluator.calc_aggregate(results)
        return [found[measure] for measure in measures]

    return {"ir_measures, from dictionaries": means}


def _ranx(results: dict, qrels: dict) -> dict[str, Callable[[], list[float]]]:
    try:
        import ranx
    except ImportError:
        return {}
    names = ["ndcg@10", "map@100", "recall@100", "precision@10", "mrr"]
    judged, built = ranx.Qrels(qrels), ranx.Run(results)
    return {
        "ranx, from its own run": lambda: list(ranx.evaluate(judged, built, names).values()),
        "ranx, from dictionaries": lambda: list(ranx.evaluate(judged, ranx.Run(results), names).values()),
    }


def table(title: str, found: dict[str, Callable[[], list[float]]], repeats: int) -> None:
    reference = found["pytrec_eval, from dictionaries"]()
    largest = {name: float(np.abs(np.array(function()) - reference).max()) for name, function in found.items()}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(repeats):
        for name, function in found.items():
            begin = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begin)
    best = median(seconds["jaxret, from arrays"])
    print(f"\n{title}")
    print(f"{'':36}{'ms':>8}  {'times jaxret from arrays':>24}  {'largest difference to pytrec_eval':>33}")
    for name, values in seconds.items():
        print(f"{name:36}{median(values) * 1e3:8.1f}  {median(values) / best:24.1f}  {largest[name]:33.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--depth", type=int, default=1_000)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # numba's, on ranx
    for judged, decimals in ((1, None), (20, None), (1, 4), (1, 2)):
        data = synthetic(options.queries, options.depth, options.documents, judged, decimals)
        scores = data[3]
        tied = float((scores[:, 1:] == scores[:, :-1]).mean())
        table(f"{judged} judgements a query, {tied:.1%} of neighbours tied", contestants(*data), options.repeats)


if __name__ == "__main__":
    main()
