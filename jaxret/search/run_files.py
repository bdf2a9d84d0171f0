"""Runs in files: TREC run files out; TREC, three-column and ColBERT ranking files in."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from jaxret.errors import InputError
from jaxret.files import atomic, open_text
from jaxret.search.runs import Run, with_scores

Fields = tuple[str, str, float]  # query id, document id, score


def write_run(run: Run, path: str | Path, tag: str = "jaxret") -> None:
    """Writes lines `qid Q0 docid rank score tag`, the score with six decimals, ranks from 1; atomically.

    Rounding can make ties. Ranks are those of the rounded scores, so that they agree with what trec_eval and `read_run`
    make of the file. Queries without results leave no line.

    Raises:
      InputError: an id or the tag is empty or holds white space.
    """
    # A float32 times 10**6 is exact in float64, and rint rounds as printf does.
    ranked = with_scores(run, np.rint(run.scores.astype(np.float64) * 1e6) / 1e6)
    _reject_spaces("tag", [tag])
    _reject_spaces("query id", run.query_ids)
    _reject_spaces("document id", (run.documents[index] for index in np.unique(run.indices).tolist()))
    with atomic(path) as file:
        for query, results in ranked.results():
            lines = enumerate(results.items(), 1)
            file.writelines(f"{query} Q0 {document} {rank} {score:.6f} {tag}\n" for rank, (document, score) in lines)


def read_run(path: str | Path, dialect: str | None = None) -> Run:
    """Reads a run file, plain or `.gz`; lines of a query may be scattered, blank lines are skipped.

    Args:
      path: the file.
      dialect: `trec` (`qid Q0 docid rank score tag`, any white space; the rank is ignored, as trec_eval does), `tsv`
        (`qid docid score`) or `colbert` (`qid pid rank [score]`; without a score, minus the rank is the score), the
        last two with tabs. By default the first line decides: six fields are `trec`, four tab-separated
        ones `colbert`, three `colbert` where the third is exactly `1` (a first rank), else `tsv`.

    Raises:
      InputError: with `file:line`: a wrong number of fields, a score or rank that is no number, a repeated document.
    """
    rows: dict[str, int] = {}
    documents: dict[str, int] = {}
    row_of, index_of, scores, lines = array("q"), array("q"), array("d"), array("q")
    with open_text(path) as file:
        parse = None if dialect is None else _parser(dialect)
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            parse = parse or _parser(_dialect(f"{path}:{number}", line))
            query, document, score = parse(f"{path}:{number}", line)
            row_of.append(rows.setdefault(query, len(rows)))
            index_of.append(documents.setdefault(document, len(documents)))
            scores.append(score)
            lines.append(number)
    table = np.array(row_of, np.int64), np.array(index_of, np.int64)
    _reject_repeats(path, list(documents), table[0] * len(documents) + table[1], np.array(lines))
    return Run.from_pairs(list(rows), list(documents), *table, np.array(scores))


def _dialect(place: str, line: str) -> str:
    tabs = line.rstrip("\n").split("\t")
    if len(line.split()) == 6:
        return "trec"
    if len(tabs) == 4 or (len(tabs) == 3 and tabs[2].strip() == "1"):
        return "colbert"
    if len(tabs) == 3:
        return "tsv"
    raise _bad_line(place, f"{len(line.split())} fields", "a run (6 fields, or 3 or 4 tab-separated ones)")


def _parser(dialect: str) -> Callable[[str, str], Fields]:
    parsers = {"trec": _trec, "tsv": _tsv, "colbert": _colbert}
    if dialect not in parsers:
        raise InputError("dialect", f"{dialect!r} is unknown", f"Choose from {', '.join(parsers)}.")
    return parsers[dialect]


def _trec(place: str, line: str) -> Fields:
    fields = line.split()
    if len(fields) != 6:
        raise _bad_line(place, f"{len(fields)} fields", "`qid Q0 docid rank score tag`")
    return fields[0], fields[2], _number(place, "score", fields[4])


def _tsv(place: str, line: str) -> Fields:
    fields = line.rstrip("\r\n").split("\t")
    if len(fields) != 3:
        raise _bad_line(place, f"{len(fields)} fields", "`qid<TAB>docid<TAB>score`")
    return fields[0], fields[1], _number(place, "score", fields[2])


def _colbert(place: str, line: str) -> Fields:
    fields = line.rstrip("\r\n").split("\t")
    if len(fields) not in (3, 4):
        raise _bad_line(place, f"{len(fields)} fields", "`qid<TAB>pid<TAB>rank[<TAB>score]`")
    if not fields[2].strip().isdecimal() or int(fields[2]) < 1:
        problem = f"rank {fields[2]!r} is not a whole number from 1"
        raise InputError(place, problem, "Mend the line, or read scores with dialect='tsv'.")
    return fields[0], fields[1], _number(place, "score", fields[3]) if len(fields) == 4 else -float(fields[2])


def _number(place: str, field: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(place, f"{field} {text.strip()!r} is not a finite number", "Mend the line (or drop a header).")
    return number


def _bad_line(place: str, found: str, expected: str) -> InputError:
    return InputError(place, f"{found} where a line of {expected} was expected", "Mend the line.")


def _reject_spaces(what: str, ids: Iterable[str]) -> None:
    for name in ids:
        if len(name.split()) != 1 or name.split()[0] != name:
            raise InputError(
                "run", f"{what} {name!r} is empty or holds white space", "TREC files need ids without any."
            )


def _reject_repeats(path: str | Path, documents: list[str], keys: np.ndarray, lines: np.ndarray) -> None:
    order = np.argsort(keys, kind="stable")
    repeats = order[1:][keys[order[1:]] == keys[order[:-1]]]
    if len(repeats):
        first = repeats.min()
        problem = f"document {documents[keys[first] % len(documents)]!r} occurs twice for its query"
        raise InputError(f"{path}:{lines[first]}", problem, "List a document once a query.")
