"""Hard negatives for the queries of a split, a batch at a time: only the queries and a batch's candidates are held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxret.data.beir import BeirFolder
from jaxret.data.groups import Group, Passage, document, positive_documents
from jaxret.errors import InputError
from jaxret.search.mining import MiningSettings, Tally, Verdict, drawn, taught, verdicts
from jaxret.search.pairs import Pair, Scorer
from jaxret.search.rankers import Ranker

BATCH_QUERIES = 1024


@dataclass
class _Mined:
    """A query on its way through a batch."""

    query: str
    text: str
    positives: list[str]
    documents: list[str]
    rows: np.ndarray
    scores: np.ndarray
    found: np.ndarray


class Miner:
    """Chooses negatives among what a system ranks.

    Args:
      folder: the queries, corpus and judgements.
      split: whose queries.
      source: the system.
      settings: how they are chosen.
      teacher: a second opinion, see `MiningSettings.teacher_margin`; None for none.
      batch_size: queries at a time.

    Attributes:
      tally: of the queries mined so far.

    Raises:
      InputError: the split has no relevant document, or the window lies behind the end of the corpus.
    """

    def __init__(
        self,
        folder: BeirFolder,
        split: str,
        source: Ranker,
        settings: MiningSettings,
        teacher: Scorer | None = None,
        batch_size: int = BATCH_QUERIES,
    ):
        if settings.first_rank > len(folder.corpus):
            problem = f"the window starts at {settings.first_rank} of {len(folder.corpus)} documents"
            raise InputError("ranks", problem, "Start it earlier.")
        self._folder, self._source, self._teacher = folder, source, teacher
        self._settings, self._batch_size = settings, batch_size
        self._positives = positive_documents(folder, split)
        self._relevant = [folder.qrels(name) for name in folder.splits]
        self._keys = folder.corpus.text_keys
        self.tally = Tally(settings.num_negatives)

    def __len__(self) -> int:
        """The number of queries."""
        return len(self._positives)

    def __call__(self, progress: Callable[[int], None] | None = None) -> Iterator[Group]:
        """Each query with its negatives, best ranked first and with the system's scores, in the order of the qrels.

        Queries without a negative come too. `progress` hears how many more queries are done.

        Raises:
          InputError: a candidate is not in the corpus.
        """
        queries = list(self._positives)
        for start in range(0, len(queries), self._batch_size):
            batch = queries[start : start + self._batch_size]
            for mined in self._batch(batch):
                found = drawn(mined.found, mined.query, mined.documents, self._settings)
                self.tally.add(found)
                yield self._group(mined, found)
            if progress:
                progress(len(batch))

    def _batch(self, queries: Sequence[str]) -> list[_Mined]:
        row_of, texts = self._folder.queries.row_of, self._folder.queries.texts
        asked = [texts[row_of[query]] for query in queries]
        depth = min(self._settings.last_rank, len(self._folder.corpus))
        run = self._source.top_k(queries, asked, depth)
        found, places = np.unique(run.indices, return_inverse=True)
        names = [run.documents[index] for index in found.tolist()]
        rows, batch = self._rows(names), []
        for number, (query, text) in enumerate(zip(queries, asked, strict=True)):
            span = slice(run.offsets[number], run.offsets[number + 1])
            documents, own = [names[place] for place in places[span].tolist()], rows[places[span]]
            batch.append(_Mined(query, text, self._positives[query], documents, own, run.scores[span], np.zeros(0)))
        thresholds = self._thresholds(batch)
        for mined, threshold in zip(batch, thresholds, strict=True):
            mined.found = self._verdicts(mined, threshold)
        if self._teacher is not None:
            self._teach(batch, self._teacher)
        return batch

    def _verdicts(self, mined: _Mined, threshold: float) -> np.ndarray:
        graded = (split.get(mined.query, {}).items() for split in self._relevant)
        judged = self._rows([document for row in graded for document, grade in row if grade > 0])
        relevant = np.isin(mined.rows, judged)
        copies = np.isin(self._keys[mined.rows], self._keys[judged])
        return verdicts(mined.scores, relevant, copies, threshold, self._settings)

    def _rows(self, documents: Sequence[str]) -> np.ndarray:
        """int64 [n]: places in the corpus."""
        row_of = self._folder.corpus.row_of
        try:
            return np.array([row_of[document] for document in documents], np.int64)
        except KeyError as error:
            problem = f"document {error} is not in {self._folder.path}"
            raise InputError("--from", problem, "Rank the documents of this corpus.") from None

    def _thresholds(self, batch: Sequence[_Mined]) -> list[float]:
        """The lowest score of each query's positives: from its list, or asked for; NaN where there is none."""
        if not self._settings.needs_positive_scores:
            return [float("nan")] * len(batch)
        listed = [dict(zip(mined.documents, mined.scores.tolist(), strict=True)) for mined in batch]
        absent = [
            (place, name) for place, mined in enumerate(batch) for name in mined.positives if name not in listed[place]
        ]
        scores = self._source.scores([self._pair(batch[place], name) for place, name in absent])
        for (place, name), score in zip(absent, scores.tolist(), strict=True):
            listed[place][name] = score
        return [_lowest([table[name] for name in mined.positives]) for mined, table in zip(batch, listed, strict=True)]

    def _teach(self, batch: Sequence[_Mined], teacher: Scorer) -> None:
        """The teacher's filter, on all that is still open in the batch and the positives of those queries."""
        asked = []
        for mined in batch:
            places = np.flatnonzero(mined.found == Verdict.OPEN).tolist()
            names = [mined.documents[place] for place in places]
            asked.append((mined, places, names + mined.positives if names else []))
        scores = teacher([self._pair(mined, name) for mined, _, names in asked for name in names])
        start = 0
        for mined, places, names in asked:
            own = scores[start : start + len(names)]
            start += len(names)
            opinions = np.zeros(len(mined.found), np.float32)
            opinions[places] = own[: len(places)]
            if places:
                positive = _lowest(own[len(places) :].tolist())
                mined.found = taught(mined.found, opinions, positive, self._settings)

    def _pair(self, mined: _Mined, name: str) -> Pair:
        row = self._folder.corpus.row_of[name]
        return Pair(mined.query, mined.text, name, self._folder.corpus.titles[row], self._folder.corpus.texts[row])

    def _group(self, mined: _Mined, found: np.ndarray) -> Group:
        corpus = self._folder.corpus
        negatives: list[Passage] = [
            document(corpus, mined.documents[place], float(mined.scores[place]))
            for place in np.flatnonzero(found == Verdict.CHOSEN).tolist()
        ]
        return Group(mined.query, mined.text, [document(corpus, name) for name in mined.positives], negatives)


def _lowest(scores: Sequence[float]) -> float:
    """The minimum; NaN where one of them is."""
    return float(np.min(np.asarray(scores, np.float32)))
