"""Exact lexical search by vocabulary beside pair-wise and scipy's sparse product, in one interleaved run.

    .venv/bin/python benchmarks/lexical_search.py --root DATA --vocabulary VOCABULARY.txt.gz medquad mlqa-dev/en

Real passages and queries (BEIR folders under DATA) cut into the WordPieces of a vocabulary (a line each), each piece
with the weight idf x ln(1 + count); then passages over and over until there are --documents of them, a fifth of their
terms from another passage, and noise on all weights. With `--neighbours 3` a query has the terms of the next 3 too and
a passage those of the next, at half their weight: about as many terms as learned expansions have. Each system is a
process of its own, and its memory the most that it ever held. The scores, whose checksum is printed, are the same.
"""

import argparse
import gzip
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from processes import HERE, Process, compared

from jaxret.data.beir import read_corpus, read_queries
from jaxret.search.folder import Folder
from jaxret.search.store import StoredVectors, has_shard, seal, shard_bounds, write_shard
from jaxret.search.vectors import Ragged, Vectors

SHARD, REPLACED, QUERIES = 8192, 0.2, 512
AT_ONCE = {1: 16, 64: 64, QUERIES: QUERIES}  # and of how many in all
SYSTEMS = {"jaxret": "by_vocabulary", "pairwise": "pairwise", "scipy": "scipy"}


def pieces(path: Path) -> tuple[object, int]:
    """The tokeniser of a vocabulary, and its size."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    with gzip.open(path, "rt", encoding="utf-8") as lines:
        vocabulary = {line.removesuffix("\n"): number for number, line in enumerate(lines)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer, len(vocabulary)


def weighted(counts: list[Counter], neighbours: int, idf: np.ndarray) -> Vectors:
    """The terms of texts, and those of the texts that follow each."""
    ids, weights = [], []
    for number, own in enumerate(counts):
        near = counts[number + 1 : number + 1 + neighbours]
        row = {term: 0.5 * count for each in near for term, count in each.items()}
        row |= own
        ids.append(np.array(sorted(row), np.int32))
        weights.append((idf[ids[-1]] * np.log1p([row[term] for term in sorted(row)])).astype(np.float32))
    return Vectors(term_ids=Ragged.from_rows(ids), term_weights=Ragged.from_rows(weights))


def real(root: Path, sets: Iterable[str], vocabulary: Path, neighbours: tuple[int, int]) -> tuple:
    """Vectors of passages and of queries, and the size of the vocabulary."""
    tokenizer, size = pieces(vocabulary)
    counted = lambda texts: [Counter(each.ids) for each in tokenizer.encode_batch(list(texts))]  # noqa: E731
    passages = counted(text for name in sets for text in read_corpus(root / name).texts)
    queries = counted(text for name in sets for text in read_queries(root / name).texts)
    having = np.bincount([term for counts in passages for term in counts], minlength=size)
    idf = np.log((len(passages) + 1) / (having + 0.5))
    return weighted(passages, neighbours[0], idf), weighted(queries, neighbours[1], idf), size


def varied(passages: Vectors, count: int, size: int, seed: tuple[int, ...]) -> Vectors:
    """So many passages drawn, each with some terms of another, and noise on its weights."""
    random, keys, values = np.random.default_rng(seed), [], []
    for kept in (1 - REPLACED, REPLACED):
        chosen = passages.chosen(random.integers(0, len(passages), count))
        rows = np.repeat(np.arange(count), chosen.term_ids.lengths)
        mine = random.random(len(rows)) < kept
        keys.append((rows * size + chosen.term_ids.values)[mine])
        values.append((chosen.term_weights.values * random.uniform(0.5, 1.5, len(rows)).astype(np.float32))[mine])
    keys, first = np.unique(np.concatenate(keys), return_index=True)
    rows, terms = np.divmod(keys, size)
    offsets = np.searchsorted(rows, np.arange(count + 1))
    return Vectors(
        term_ids=Ragged(terms.astype(np.int32), offsets), term_weights=Ragged(np.concatenate(values)[first], offsets)
    )


def made(folder: Path, documents: int, arguments: argparse.Namespace) -> None:
    """Writes the store of documents and the queries, if they are not there."""
    if (folder / "vectors.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    neighbours = (min(arguments.neighbours, 1), arguments.neighbours)
    passages, queries, size = real(arguments.root, arguments.sets, arguments.vocabulary, neighbours)
    asked = queries.chosen(np.random.default_rng(0).permutation(len(queries))[:QUERIES])
    arrays = {name: getattr(asked, name).values for name in ("term_ids", "term_weights")}
    np.savez(folder / "queries.npz", size=size, offsets=asked.term_ids.offsets, **arrays)
    store, bounds = Folder(folder), list(shard_bounds(documents, SHARD))
    for number, (start, stop) in enumerate(bounds):
        if not has_shard(store, number):
            ids = [str(position) for position in range(start, stop)]
            write_shard(store, number, ids, varied(passages, stop - start, size, (1, number)))
    seal(store, len(bounds), {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="FOLDER")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=262_144)
    parser.add_argument("--neighbours", type=int, default=0)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--budget", type=float, help="memory_budget_gb of our searches")
    parser.add_argument("--at_once", type=int, nargs="+", default=list(AT_ONCE), choices=AT_ONCE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/lexical_search"))
    arguments = parser.parse_args()
    words = "+".join(name.replace("/", "-") for name in arguments.sets)
    folder = arguments.folder / f"{words}-{arguments.neighbours}-{arguments.documents}"
    made(folder, arguments.documents, arguments)
    stored, offsets = StoredVectors(folder), np.load(folder / "queries.npz")["offsets"]
    terms = stored.nbytes(("term_ids",)) / 4 / len(stored)
    print(
        f"{len(stored):,} passages of {terms:.0f} terms, queries of {offsets[-1] / (len(offsets) - 1):.0f}", flush=True
    )
    for at_once in arguments.at_once:
        queries = AT_ONCE[at_once]
        shared = folder, arguments.k, queries, at_once, arguments.budget or 0
        systems = {
            name: Process(HERE.parent / ".venv", "lexical_peer.py", SYSTEMS[name], *shared)
            for name in arguments.systems
        }
        compared(systems, arguments.rounds, f"{queries} queries, {at_once} at once")


if __name__ == "__main__":
    main()
