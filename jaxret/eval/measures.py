"""Measures and their names: one measure, many spellings, one key."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jaxret.errors import InputError

# The canonical names, with the spellings of trec_eval, ir_measures, BEIR and MTEB.
_SPELLINGS = {
    "ndcg": ("ndcg",),
    "map": ("map", "ap"),
    "recall": ("recall", "r"),
    "recall_cap": ("recall_cap", "r_cap", "capped_recall"),
    "precision": ("precision", "p"),
    "mrr": ("mrr", "rr", "recip_rank"),
    "hit_rate": ("hit_rate", "hr", "hits", "success"),
}
_NAMES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_WITHOUT_CUTOFF = ("ndcg", "map", "mrr")
_PATTERN = re.compile(r"([a-z_]+?)(?:(?:@|_at_|_cut_|_cut\.|_|\.)([1-9][0-9]*))?")


@dataclass(frozen=True)
class Measure:
    """`name` is canonical (`ndcg`, `mrr`, ...); `k` is the rank that ends the list, None for the whole list."""

    name: str
    k: int | None = None

    @property
    def key(self) -> str:
        """The key in results, such as `ndcg_at_10`, or `map` without a cut-off."""
        return self.name if self.k is None else f"{self.name}_at_{self.k}"


def parse_measure(text: str) -> Measure:
    """The measure of a name such as `ndcg@10`, `nDCG@10`, `ndcg_cut_10`, `RR@10`, `R@100`, `ndcg_at_10` or `map`.

    Raises:
      InputError: unknown, or without the cut-off that it needs; lists the valid names.
    """
    match = _PATTERN.fullmatch(text.strip().lower())
    if match is None or match[1] not in _NAMES:
        spellings = ", ".join(sorted(f"{spelling}@k" for spelling in _NAMES))
        raise InputError("measure", f"{text!r} is unknown", f"Choose from {spellings} (k from 1).")
    name, k = _NAMES[match[1]], match[2]
    if k is None and name not in _WITHOUT_CUTOFF:
        raise InputError("measure", f"{text!r} has no cut-off", f"Write {match[1]}@10 for the first ten results.")
    return Measure(name, None if k is None else int(k))


DEFAULT_MEASURES = tuple(
    Measure(name, k)
    for name in ("ndcg", "map", "recall", "precision", "mrr", "hit_rate")
    for k in (1, 3, 5, 10, 100, 1000)
)
