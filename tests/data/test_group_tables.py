import json

import pytest

from jaxret.data.beir import BeirFolder
from jaxret.data.group_tables import group_tables, passage_key
from jaxret.data.groups import Group, Passage, read_groups, split_groups
from jaxret.errors import InputError
from tests.data.conftest import HEADER


def named(content):
    """{query text: its positives, negatives and relevant passages as (id, title, text)} and the rows themselves."""
    documents = [(row["id"], row["title"], row["text"]) for row in content.tables["documents"]]
    assert len(set(documents)) == len(documents)
    assert [row["key"] for row in content.tables["documents"]] == [passage_key(*row[1:]) for row in documents]
    sides = ("positives", "negatives", "relevant")
    return {
        (row["id"], row["text"]): tuple([documents[i] for i in row[side]] for side in sides)
        for row in content.tables["queries"]
    }


def test_a_split(beir_folder):
    path = beir_folder(
        train=[HEADER, "q2\td2\t1", "q2\td3\t3", "q2\td1\t0"],
        test=[HEADER, "q1\td1\t1"],
        negatives=[HEADER, "q2\td1\t0", "q1\td3\t0"],
    )
    content = group_tables(split_groups(BeirFolder(path), "train"))
    positives = [("d2", "", "two"), ("d3", "", "three")]
    assert named(content) == {("q2", "second?"): (positives, [("d1", "T", "one")], positives)}
    assert content.facts == {"without_negatives": [], "without_scores": [f"{path}/negatives.tsv", "q2"]} | {
        "most_relevant": 2
    }


def test_slice_of_the_demo(slice_of_demo):
    folder = BeirFolder(slice_of_demo(40, 2))
    found = named(group_tables(split_groups(folder, "train")))
    assert [name for name, _ in found] == list(folder.qrels("train")), "in the order of the qrels"
    for (query, text), (positives, negatives, relevant) in found.items():
        assert text == folder.queries.texts[folder.queries.row_of[query]]
        assert [p[0] for p in positives] == list(folder.qrels("train")[query])
        assert [n[0] for n in negatives] == folder.negatives[query] and relevant == positives
        for identifier, title, body in positives + negatives:
            row = folder.corpus.row_of[identifier]
            assert (title, body) == (folder.corpus.titles[row], folder.corpus.texts[row])


def test_only_documents_that_are_named_are_stored(beir_folder):
    path = beir_folder()
    content = group_tables(split_groups(BeirFolder(path), "train"))
    assert [row["id"] for row in content.tables["documents"]] == ["d1", "d2"]
    assert content.facts["without_negatives"] == [f"{path}/negatives.tsv", "q1"]


def test_the_relevant_passages_of_all_lines_of_a_query(beir_folder, tmp_path):
    """ColBERT's files have a line for each positive."""
    lines = [["q1", ["d1", 0.5], ["d3", -1]], ["q1", ["d2", 2], ["d3", -1.5]], ["q2", ["d3", 1], ["d1", 0]]]
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    content = group_tables(read_groups(tmp_path / "groups.jsonl", BeirFolder(beir_folder())))
    queries = content.tables["queries"]
    assert [(row["positives"], row["negatives"], row["relevant"]) for row in queries] == [
        ([0], [1], [0, 2]),
        ([2], [1], [0, 2]),
        ([1], [0], [1]),
    ]
    assert [(row["positive_scores"], row["negative_scores"]) for row in queries] == [
        ([0.5], [-1]),
        ([2], [-1.5]),
        ([1], [0]),
    ]
    assert content.facts == {"without_negatives": [], "without_scores": [], "most_relevant": 2}


def test_texts_alone(tmp_path):
    rows = [
        {"query": "a?", "pos": ["x", "y"], "neg": ["z"], "pos_scores": [1, 2], "neg_scores": [3]},
        {"query": "b?", "pos": ["z"], "neg": []},
        {"query": "a?", "pos": ["w"], "neg": ["x"]},
    ]
    (tmp_path / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = group_tables(read_groups(tmp_path / "groups.jsonl"))
    assert [row["text"] for row in content.tables["documents"]] == ["x", "y", "z", "w"]
    assert [row["relevant"] for row in content.tables["queries"]] == [[0, 1, 3], [2], [0, 1, 3]]
    assert [row["positive_scores"] for row in content.tables["queries"]] == [[1, 2], [], []]
    place = f"{tmp_path}/groups.jsonl:2"
    assert content.facts["without_negatives"] == content.facts["without_scores"] == [place, "b?"]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (Group("", "q", [], [Passage("", "", "x")], "file:4"), "file:4: a query without a positive"),
        (Group("", "q", [Passage("", " ", "\t")], [], "file:4"), "file:4: an empty query or passage"),
        (Group("", " ", [Passage("", "", "x")], [], "file:4"), "file:4: an empty query or passage"),
        (Group("", "q", [Passage("", "", "x\ud800")], [], "file:4"), "file:4: half a surrogate pair"),
    ],
)
def test_bad_groups(group, message):
    with pytest.raises(InputError, match=message):
        group_tables([group])


def test_passage_key():
    assert passage_key("T", "x") == 21_564_260, "stable: runs may be resumed on another machine"
    assert passage_key("T", "x") == passage_key("", "T x") == passage_key("", " T\n x "), "how files of groups have it"
    assert passage_key("T", "x") != passage_key("", "Tx")
    keys = [passage_key("", str(i)) for i in range(1000)]
    assert all(0 <= key < 2**31 for key in keys) and len(set(keys)) == 1000 and max(keys) > 2**30
