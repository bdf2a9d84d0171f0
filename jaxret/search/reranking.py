"""A run ranked again: the first documents of each query by another system's scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxret.data.beir import BeirFolder
from jaxret.data.text import passage_text
from jaxret.errors import InputError
from jaxret.search.corpus import model_fingerprint
from jaxret.search.cross_encoder import CrossEncoder
from jaxret.search.pairs import Pair, Scorer, Scores
from jaxret.search.runs import Run, kept, with_scores

BATCH_QUERIES = 64


class CrossEncoderRanker:
    """A cross-encoder as a `Ranker` that only scores pairs, by the number before its `activation_fn`."""

    def __init__(self, encoder: CrossEncoder):
        self._encoder = encoder

    def top_k(self, ids: Sequence[str], texts: Sequence[str], k: int) -> Run:
        """InputError: it would have to read the whole corpus with every query."""
        raise InputError("cross-encoder", "ranks no corpus", "Let another system rank, and rerank what it finds.")

    def scores(self, pairs: Sequence[Pair]) -> Scores:
        """As `Ranker` has it; a passage is its title and its text."""
        separator = self._encoder.model.text.title_separator
        passages = [passage_text(pair.title, pair.text, separator) for pair in pairs]
        return self._encoder.logits([pair.query for pair in pairs], passages)

    def facts(self) -> dict[str, Any]:
        """The model's fingerprint and how a pair becomes ids."""
        model = self._encoder.model
        return {"system": "cross_encoder", "model": model_fingerprint(self._encoder), "text": model.text.to_dict()}


def check_run(run: Run, folder: BeirFolder) -> None:
    """Makes sure that a run has results, of the folder's own queries and documents; InputError names the stranger."""
    if not len(run.indices):
        raise InputError("run", "holds no results", "Give the run of a search.")
    found = [run.documents[index] for index in np.unique(run.indices).tolist()]
    for what, names, known in (
        ("query", run.query_ids, folder.queries.row_of),
        ("document", found, folder.corpus.row_of),
    ):
        for name in names:
            if name not in known:
                raise InputError(
                    "run", f"{what} {name!r} is not in {folder.path}", "Give the folder that was searched."
                )


def reranked(
    run: Run,
    folder: BeirFolder,
    scorer: Scorer,
    top_k: int,
    rest: str = "keep",
    batch_size: int = BATCH_QUERIES,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """The run with the first `top_k` documents of each query in the order of their new scores.

    Args:
      run: of the folder's queries and documents, see `check_run`.
      folder: their texts.
      scorer: gives the new scores.
      top_k: documents a query.
      rest: what becomes of the others: "keep" them below, in their order, with scores below the lowest new one; or
        "drop" them.
      batch_size: queries at a time.
      progress: hears how many more queries are done.

    Raises:
      InputError: the scorer has no score for a pair.
    """
    places = np.arange(len(run.indices)) - run.offsets[run.rows]
    if rest == "drop":
        run = kept(run, places < top_k)
    scores = np.empty(len(run.indices), np.float32)
    for start in range(0, len(run), batch_size):
        rows = range(start, min(start + batch_size, len(run)))
        spans = [(int(run.offsets[row]), int(run.offsets[row + 1])) for row in rows]
        firsts = [(begin, min(begin + top_k, end)) for begin, end in spans]
        pairs = [
            _pair(run, folder, row, place) for row, span in zip(rows, firsts, strict=True) for place in range(*span)
        ]
        found = _finite(scorer(pairs), pairs)
        for (begin, end), (_, cut) in zip(spans, firsts, strict=True):
            scores[begin:cut], found = found[: cut - begin], found[cut - begin :]
            scores[cut:end] = _below(scores[begin:cut], end - cut)
        if progress:
            progress(len(rows))
    return with_scores(run, scores)


def _pair(run: Run, folder: BeirFolder, row: int, place: int) -> Pair:
    query, document = run.query_ids[row], run.documents[int(run.indices[place])]
    text, line = folder.queries.texts[folder.queries.row_of[query]], folder.corpus.row_of[document]
    return Pair(query, text, document, folder.corpus.titles[line], folder.corpus.texts[line])


def _finite(scores: Scores, pairs: Sequence[Pair]) -> Scores:
    missing = np.flatnonzero(~np.isfinite(scores))
    if len(missing):
        pair = pairs[missing[0]]
        problem = f"no score for query {pair.query_id!r} and document {pair.document_id!r}"
        raise InputError("model", problem, "Give a model that scores texts.")
    return scores


def _below(scores: Scores, count: int) -> Float32[np.ndarray, " m"]:
    """So many descending numbers, all below the scores, and different in float32 and in six decimals."""
    if not len(scores):
        return np.zeros(count, np.float32)
    lowest = scores.min()
    step = max(np.float32(1), 4 * np.spacing(np.abs(lowest) + np.float32(count)))
    return lowest - step * np.arange(1, count + 1, dtype=np.float32)
