import gzip

import pytest

from jaxret.data.beir import BeirFolder, read_corpus, read_qrels, read_queries
from jaxret.data.corpus import Corpus
from jaxret.errors import InputError
from tests.data.conftest import CORPUS, HEADER, QUERIES, TRAIN


def test_reads_a_folder(beir_folder):
    folder = BeirFolder(
        beir_folder(test=[HEADER, "q1\td3\t2", "q1\td1\t0"], negatives=[HEADER, "q2\td3\t.5", "q2\td1\t-"])
    )
    assert folder.corpus == Corpus(["d1", "d2", "d3"], ["T", "", ""], ["one", "two", "three"])
    assert folder.queries.texts == ["first?", "second?"]
    assert folder.splits == ["test", "train"]
    assert folder.qrels("test") == read_qrels(folder.path, "test") == {"q1": {"d3": 2, "d1": 0}}
    assert folder.negatives == {"q2": ["d3", "d1"]}
    assert folder.validated("train") is folder
    assert folder.corpus.row_of == {"d1": 0, "d2": 1, "d3": 2} and len(folder.corpus) == 3
    assert folder.skipped == {}


def test_whole_number_ids_become_strings(beir_folder):
    path = beir_folder(
        corpus=['{"_id": 7, "text": "x"}'], queries=['{"_id": 0, "text": "y"}'], train=[HEADER, "0\t7\t1"]
    )
    assert BeirFolder(path).validated("train").corpus.ids == ["7"]


def test_gzip_twin_has_the_same_content(beir_folder):
    path = beir_folder()
    plain = BeirFolder(path)
    before = plain.corpus.fingerprint, plain.queries.fingerprint, plain.fingerprint, plain.qrels("train")
    for file in [*path.glob("*.jsonl"), *path.glob("qrels/*")]:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    zipped = BeirFolder(path)
    after = zipped.corpus.fingerprint, zipped.queries.fingerprint, zipped.fingerprint, zipped.qrels("train")
    assert after[0] == before[0] and after[1] == before[1] and after[3] == before[3]
    assert after[2] != before[2]


@pytest.mark.parametrize("file", ["corpus", "queries", "train", "negatives", "dev"])
def test_fingerprint_sees_every_file(beir_folder, file):
    path = beir_folder(negatives=[HEADER])
    before = BeirFolder(path).fingerprint
    assert BeirFolder(path).fingerprint == before
    lines = {"corpus": CORPUS, "queries": QUERIES, "train": TRAIN, "negatives": [HEADER]}.get(file, [HEADER])
    beir_folder(**{file: [*lines, ""]})
    assert BeirFolder(path).fingerprint != before


def test_corpus_fingerprint_tells_fields_apart():
    assert Corpus(["a"], ["b"], ["cd"]).fingerprint != Corpus(["a"], ["bc"], ["d"]).fingerprint


BAD_CORPUS = [
    ('{"_id": "x", "text": " "}', '"text" is empty'),
    ('{"_id": "x"}', '"text" is missing or not a string'),
    ('{"_id": "x", "text": 5}', '"text" is missing or not a string, found 5'),
    ('{"_id": "x", "text": "y", "title": 5}', '"title" is missing or not a string, found 5'),
    ('{"text": "y"}', '"_id" is missing'),
    ('{"_id": true, "text": "y"}', '"_id" is missing or not a string, found True'),
    ('{"_id": "", "text": "y"}', '"_id" is empty'),
    ('{"_id": "x", "text": "\\ud83d"}', '"text" holds half a surrogate pair'),
    ('{"_id": "x", "text": "y"', "broken JSON"),
]


@pytest.mark.parametrize(("line", "message"), BAD_CORPUS)
@pytest.mark.parametrize("file", ["corpus", "queries"])
def test_bad_rows_name_place_and_field(beir_folder, file, line, message):
    good = {"corpus": CORPUS, "queries": QUERIES}[file]
    path = beir_folder(**{file: [*good, line]})
    read = {"corpus": read_corpus, "queries": read_queries}[file]
    with pytest.raises(InputError) as error:
        read(path)
    assert f"{file}.jsonl:{len(good) + 1}: {message}" in str(error.value)
    assert read(path, "skip") == read(beir_folder("good"))


def test_skipped_rows_are_counted(beir_folder):
    path = beir_folder(
        corpus=[*CORPUS, '{"_id": "e1", "text": ""}', '{"_id": "e2", "text": ""}', "{"],
        train=[*TRAIN, "q1\te1\t1", "q1\td3\tmany"],
    )
    folder = BeirFolder(path, on_bad="skip").validated("train")
    assert folder.qrels("train") == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    assert folder.skipped == {
        'corpus.jsonl: "text" is empty': 2,
        "corpus.jsonl: broken JSON": 1,
        'train.tsv: "corpus-id" names a skipped row': 1,
        'train.tsv: "score" is not a whole number': 1,
    }


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_duplicate_id_is_always_an_error(beir_folder, policy):
    with pytest.raises(InputError, match=r"corpus\.jsonl:4: \"_id\" 'd1' is there twice, first in line 1"):
        read_corpus(beir_folder(corpus=[*CORPUS, CORPUS[0]]), policy)


BAD_QRELS = [
    ("q1\td9\t1", "\"corpus-id\" 'd9' is not in corpus.jsonl", False),
    ("q9\td1\t1", "\"query-id\" 'q9' is not in queries.jsonl", False),
    ("q1\td3\t0.5", "\"score\" is not a whole number, found '0.5'", True),
    ("q1\td3", "not 3 filled columns", True),
    ("q1\td1\t1", "the query and document are there twice", True),
]


@pytest.mark.parametrize(("line", "message", "skippable"), BAD_QRELS)
def test_bad_judgements(beir_folder, line, message, skippable):
    path = beir_folder(train=[*TRAIN, line])
    with pytest.raises(InputError) as error:
        BeirFolder(path).qrels("train")
    assert f"train.tsv:4: {message}" in str(error.value)
    if skippable:
        assert BeirFolder(path, "skip").qrels("train") == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    else:
        with pytest.raises(InputError):
            BeirFolder(path, "skip").qrels("train")


def test_negatives_are_checked(beir_folder):
    for line, message in [("q1\td9\t0", "is not in corpus"), ("q1\td1\t0", "is a negative and relevant to the query")]:
        with pytest.raises(InputError, match=rf"negatives\.tsv:2: .*{message}"):
            BeirFolder(beir_folder(negatives=[HEADER, line])).validated("train")
    assert BeirFolder(beir_folder(negatives=[HEADER, "q1\td1\t0", "q1\td2\t0"]), "skip").negatives == {"q1": ["d2"]}


def test_missing_split_lists_the_splits(beir_folder):
    path = beir_folder(dev=TRAIN)
    for read in (lambda: read_qrels(path, "test"), lambda: BeirFolder(path).validated("test")):
        with pytest.raises(InputError, match=r"no split 'test'. Splits here: dev, train"):
            read()


def test_empty_files(beir_folder):
    with pytest.raises(InputError, match=r"corpus\.jsonl: holds no rows"):
        read_corpus(beir_folder(corpus=[]))
    with pytest.raises(InputError, match=r"train\.tsv: holds no judgements"):
        read_qrels(beir_folder(train=[HEADER]), "train")


def test_missing_folder_and_file(tmp_path, beir_folder):
    with pytest.raises(InputError, match="no such folder"):
        BeirFolder(tmp_path / "nowhere")
    path = beir_folder()
    (path / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"queries\.jsonl: no such file"):
        BeirFolder(path).validated("train")


def test_the_demo_set_is_whole(demo):
    train = BeirFolder(demo / "jaquad").validated("train")
    dev, test = BeirFolder(demo / "jaquad-dev").validated("dev"), BeirFolder(demo / "jsquad").validated("test")
    assert (len(train.corpus), len(train.qrels("train"))) == (9_713, 31_748)
    assert (len(dev.corpus), len(dev.qrels("dev"))) == (1_431, 985)
    assert (len(test.corpus), len(test.qrels("test"))) == (1_145, 4_442)
    folders = [set(folder.corpus.texts) for folder in (train, dev, test)]
    assert len(set.union(*folders)) == sum(map(len, folders)), "a passage in two of them"


def test_the_demo_set_is_what_its_readme_says(demo):
    import hashlib

    rows = [
        line.split("|")[1:4] for line in (demo / "README.md").read_text().splitlines() if ".gz`" in line and "|" in line
    ]
    assert len(rows) == 12
    for name, size, digest in rows:
        content = (demo / name.strip(" `")).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (int(size), digest.strip())
    assert sum(file.stat().st_size for file in demo.rglob("*") if file.is_file()) < 10_000_000
