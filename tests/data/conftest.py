"""A small vocabulary, and small BEIR folders with whatever is wrong with them."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxret.data.batches import GroupFile, Source, training_batches
from jaxret.data.beir import BeirFolder, read_corpus
from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import Tokenizer, trained_vocabulary

DEMO = Path(__file__).parents[2] / "data"
CORPUS = [
    '{"_id": "d1", "title": "T", "text": "one"}',
    '{"_id": "d2", "text": "two"}',
    '{"_id": "d3", "text": "three"}',
]
QUERIES = ['{"_id": "q1", "text": "first?"}', '{"_id": "q2", "text": "second?"}']
HEADER = "query-id\tcorpus-id\tscore"
TRAIN = [HEADER, "q1\td1\t1", "q2\td2\t1"]
TEXT = TextConfig(query_max_len=32, passage_max_len=48)


def same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture(scope="session")
def demo() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def vocabulary() -> Tokenizer:
    return Tokenizer(trained_vocabulary(read_corpus(DEMO / "jsquad").texts, 3000, sample=2000))


@pytest.fixture
def beir_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a good folder of 3 documents and 2 queries, or one with other lines in the files that are named."""

    def write(name: str = "set", **files: list[str]) -> Path:
        lines = {"corpus": CORPUS, "queries": QUERIES, "train": TRAIN, **files}
        paths = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "negatives": "negatives.tsv"}
        for file, content in lines.items():
            path = tmp_path / name / paths.get(file, f"qrels/{file}.tsv")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(content) + "\n", encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def jaquad() -> BeirFolder:
    return BeirFolder(DEMO / "jaquad").validated("train")


@pytest.fixture
def slice_of_demo(tmp_path: Path, jaquad: BeirFolder) -> Callable[..., Path]:
    """The first passages of JaQuAD with their training queries, and as many negatives (the passages that follow)."""

    def write(num_documents: int, num_negatives: int, name: str = "slice") -> Path:
        kept = jaquad.corpus.ids[:num_documents]
        train = {query: next(iter(row)) for query, row in jaquad.qrels("train").items() if next(iter(row)) in kept}
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        rows = [
            {"_id": identifier, "title": title, "text": text}
            for identifier, title, text in zip(kept, jaquad.corpus.titles, jaquad.corpus.texts, strict=False)
        ]
        queries = [{"_id": query, "text": jaquad.queries.texts[jaquad.queries.row_of[query]]} for query in train]
        for file, content in (("corpus", rows), ("queries", queries)):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
            (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
        pairs = [f"{query}\t{document}\t1\n" for query, document in train.items()]
        (folder / "qrels" / "train.tsv").write_text(f"{HEADER}\n" + "".join(pairs))
        negatives = [
            f"{query}\t{kept[(kept.index(document) + i) % num_documents]}\t0\n"
            for query, document in train.items()
            for i in range(1, num_negatives + 1)
        ]
        if negatives:
            (folder / "negatives.tsv").write_text(f"{HEADER}\n" + "".join(negatives))
        return folder

    return write


@pytest.fixture
def batches(vocabulary, tmp_path):
    def make(folders, count, *, rates=(), batch=12, group=3, seed=0, **place):
        sources = [
            folder if isinstance(folder, GroupFile | Source) else Source(folder, rate=rate)
            for folder, rate in zip(folders, itertools.chain(rates, itertools.repeat(1.0)), strict=False)
        ]
        iterator = training_batches(
            sources,
            vocabulary,
            TEXT,
            global_batch_size=batch,
            train_group_size=group,
            seed=seed,
            cache_dir=tmp_path / "cache",
            **place,
        )
        return list(itertools.islice(iterator, count))

    return make
