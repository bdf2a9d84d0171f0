"""Training groups in other libraries' files."""

import gzip
import json

import pytest

from jaxret.data.beir import BeirFolder
from jaxret.data.group_files import GROUP_LAYOUTS, beir_lines, colbert_lines, flagembedding_lines, tevatron_lines
from jaxret.data.groups import Group, Passage, beir_groups, positive_documents, read_groups
from jaxret.errors import InputError
from tests.data.conftest import HEADER

PASSAGES = {"d1": Passage("d1", "T", "one"), "7": Passage("7", "", "zwei"), "07": Passage("07", "", "drei")}
PLAIN = Group("12", "was?", [PASSAGES["d1"], PASSAGES["7"]], [PASSAGES["07"]])
SCORED = Group("q", "was?", [Passage("d1", "T", "one", 0.5)], [Passage("07", "", "drei", -1.0)])


def rows(lines):
    return [json.loads(line) for line in lines]


def test_colbert():
    assert rows(colbert_lines(PLAIN)) == [[12, "d1", "07"], [12, 7, "07"]]
    assert rows(colbert_lines(SCORED)) == [["q", ["d1", 0.5], ["07", -1.0]]]


def test_flagembedding():
    assert rows(flagembedding_lines(PLAIN)) == [{"query": "was?", "pos": ["T one", "zwei"], "neg": ["drei"]}]
    scores = {"pos_scores": [0.5], "neg_scores": [-1.0]}
    assert rows(flagembedding_lines(SCORED)) == [{"query": "was?", "pos": ["T one"], "neg": ["drei"], **scores}]


def test_tevatron():
    (row,) = rows(tevatron_lines(PLAIN))
    assert (row["query_id"], row["query"]) == ("12", "was?")
    assert row["positive_passages"][0] == {"docid": "d1", "title": "T", "text": "one"}
    assert [passage["docid"] for passage in row["negative_passages"]] == ["07"]


def test_beir_negatives_are_what_training_reads(beir_folder):
    group = Group("q1", "first?", [], [Passage("d2", "", "two", 1.25), Passage("d3", "", "three")])
    lines = list(beir_lines(group))
    assert lines == ["q1\td2\t1.250000", "q1\td3\t0.000000"]
    folder = BeirFolder(beir_folder(negatives=[HEADER, *lines]))
    assert folder.negatives == {"q1": ["d2", "d3"]}
    (found,) = beir_groups(folder, "train")
    assert [passage.id for passage in found.positives] == ["d1"]
    assert [passage.text for passage in found.negatives] == ["two", "three"]
    for name in ("", "a\tb"):
        with pytest.raises(InputError, match="empty or holds a tab"):
            list(beir_lines(Group("q1", "first?", [], [Passage(name, "", "two")])))


def test_what_is_written_is_read(beir_folder, tmp_path):
    folder = BeirFolder(beir_folder())
    group = Group("q1", "first?", [Passage("d1", "T", "one", 0.1)], [Passage("d3", "", "three", 3.0)])
    for layout in ("colbert", "flagembedding"):
        file = tmp_path / f"{layout}.jsonl.gz"
        with gzip.open(file, "wt") as stream:
            stream.writelines(f"{line}\n" for line in GROUP_LAYOUTS[layout](group))
        (found,) = read_groups(tmp_path / f"{layout}.jsonl", folder)
        if layout == "colbert":
            assert found == group
        else:
            assert (found.query_id, found.query) == ("", "first?")
            assert found.positives == [Passage("", "", "T one", 0.1)]
            assert found.negatives == [Passage("", "", "three", 3.0)]


def test_colbert_ids_may_be_numbers(beir_folder, tmp_path):
    corpus = ['{"_id": "1", "text": "one"}', '{"_id": "2", "text": "two"}']
    folder = beir_folder(corpus=corpus, queries=['{"_id": "9", "text": "what?"}'], train=[HEADER, "9\t1\t1"])
    (tmp_path / "triples.jsonl").write_text("[9, 1, 2]\n")
    (group,) = read_groups(tmp_path / "triples.jsonl", BeirFolder(folder))
    assert (group.positives[0].text, group.negatives[0].text, group.scored) == ("one", "two", False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["q1", "d1"', "broken JSON"),
        ('["q1"]', "1 fields"),
        ('["q9", "d1", "d2"]', "query 'q9' is not in queries.jsonl"),
        ('["q1", "d9", "d2"]', "document 'd9' is not in corpus.jsonl"),
        ('["q1", ["d1", "x"]]', "score 'x' is no number"),
        ('["q1", ["d1", NaN]]', "score nan is no number"),
        ('["q1", ["d1", 1, 2]]', "is no id"),
        ('["q1", true]', "True is no id"),
        ('{"pos": [], "neg": []}', '"query" is missing'),
        ('{"query": "x", "pos": ["a"]}', '"neg" is missing'),
        ('{"query": "x", "pos": [1], "neg": []}', '"pos" is missing or not a list of strings'),
        ('{"query": "x", "pos": ["a"], "pos_scores": [1, 2], "neg": []}', '"pos_scores" does not fit'),
        ('"x"', '"query" is missing'),
    ],
)
def test_bad_rows(beir_folder, tmp_path, line, message):
    (tmp_path / "groups.jsonl").write_text(f'["q1", "d1", "d2"]\n{line}\n')
    with pytest.raises(InputError, match=rf"groups.jsonl:2: .*{message}"):
        list(read_groups(tmp_path / "groups.jsonl", BeirFolder(beir_folder())))


def test_files_that_cannot_be_read(beir_folder, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no rows"):
        list(read_groups(tmp_path / "empty.jsonl"))
    (tmp_path / "ids.jsonl").write_text('["q1", "d1"]\n')
    with pytest.raises(InputError, match="Give the BEIR folder"):
        list(read_groups(tmp_path / "ids.jsonl"))
    with pytest.raises(InputError, match=r"no negatives.tsv.*jaxret mine"):
        list(beir_groups(BeirFolder(beir_folder()), "train"))
    with pytest.raises(InputError, match="no relevant document"):
        positive_documents(BeirFolder(beir_folder(train=[HEADER, "q1\td1\t0"])), "train")
