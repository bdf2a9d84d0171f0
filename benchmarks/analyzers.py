"""nDCG@10 of BM25 by analyser and retrieval set, as a table; the default of each language is marked.

`python benchmarks/analyzers.py --root DATA ja:jsquad am:amqa:dev` takes BEIR folders under DATA, each with the language
and, after it, the split (`test` if left out).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from jaxret.data.beir import BeirFolder
from jaxret.errors import InputError
from jaxret.eval.metrics import mean_scores
from jaxret.eval.systems import bm25_run, judged
from jaxret.search.analyzers import analyzer

UNSPACED = ("1-grams", "2-grams", "3-grams", "1-grams+2-grams", "mecab", "2-grams+mecab")
SPACED = (
    "words",
    "snowball",
    "amharic",
    "words+amharic",
    "letter-3-grams",
    "words+letter-3-grams",
    "words+letter-4-grams",
)
UNSPACED_LANGUAGES = ("ja", "zh", "th")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("sets", nargs="+", metavar="LANGUAGE:FOLDER[:SPLIT]")
    arguments = parser.parse_args()
    for choices, unspaced in ((SPACED, False), (UNSPACED, True)):
        sets = [name for name in arguments.sets if (name.split(":")[0] in UNSPACED_LANGUAGES) == unspaced]
        if sets:
            print(f"| set | queries | passages | {' | '.join(choices)} |\n|{'---|' * (len(choices) + 3)}")
        for name in sets:
            print(row(arguments.root, choices, *name.split(":")), flush=True)


def row(root: Path, choices: tuple[str, ...], language: str, folder: str, split: str = "test") -> str:
    """A line of the table."""
    data = BeirFolder(root / folder)
    ids, texts = judged(data, split)
    cells = [
        f"{language} {folder}" + (f" {split}" if split != "test" else ""),
        f"{len(ids):,}",
        f"{len(data.corpus):,}",
    ]
    for name in choices:
        try:
            run, settings = bm25_run(data.corpus, language, ids, texts, min(100, len(data.corpus)), name)
        except InputError:  # not for the language
            cells.append("")
            continue
        (value,) = mean_scores(run, data.qrels(split), ["ndcg@10"]).values()
        mark = "*" if settings.analyzer == analyzer(language).name else ""
        cells.append(f"{value:.3f}{mark}")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
