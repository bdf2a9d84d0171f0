import json
import shutil

import jax
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.mesh import device_mesh
from jaxret.search.plaid import update
from jaxret.search.plaid.files import read_lists
from jaxret.search.plaid.index import PlaidIndex, inverted_lists
from jaxret.search.plaid.search import PlaidSearch
from jaxret.search.plaid.stages import UNPRUNED
from jaxret.search.plaid.update import add_documents, delete_documents
from tests.conftest import ROOT
from tests.search.plaid.conftest import clustered


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "index")


def consistent(folder):
    """The index, whose every file agrees with the others and with its own codes."""
    index = PlaidIndex.load(folder)
    pids, lengths = read_lists(folder, len(index.codec.centroids))
    own = inverted_lists([(index.codes, np.repeat(np.arange(len(index)), index.lengths))], len(lengths))
    np.testing.assert_array_equal(own[0], pids)
    before = [0, 0]
    for number in range(json.loads((folder / "metadata.json").read_text())["num_chunks"]):
        facts = json.loads((folder / f"{number}.metadata.json").read_text())
        assert [facts["passage_offset"], facts["embedding_offset"]] == before
        before = [before[0] + facts["num_passages"], before[1] + facts["num_embeddings"]]
    assert before == [len(index), len(index.codes)]
    return index


def test_added_documents_lie_behind_the_others_compressed_by_the_same_codec(copy, folder):
    more = clustered(9, 8, empty=(2,))
    assert add_documents(copy, more).tolist() == list(range(61, 70))
    old, new = PlaidIndex.load(folder), consistent(copy)
    codes, residuals = old.codec.compressed(more.tokens.values)
    np.testing.assert_array_equal(new.codes, np.concatenate([old.codes, codes]))
    np.testing.assert_array_equal(new.residuals, np.concatenate([old.residuals, residuals]))
    np.testing.assert_array_equal(new.lengths, np.concatenate([old.lengths, more.tokens.lengths]))


def test_deleted_documents_are_found_no_more_and_the_others_keep_position_and_score(copy, folder, queries):
    gone = [1, 20, 21, 60]
    mesh = device_mesh((-1, 1, 1), jax.devices()[:1])
    before = PlaidSearch(PlaidIndex.load(folder), mesh, 50, UNPRUNED)(queries)
    delete_documents(copy, gone[:2])
    delete_documents(copy, gone[2:])
    index = consistent(copy)
    assert not index.lengths[gone].any() and index.facts["deleted"] == gone
    scores, positions = PlaidSearch(index, mesh, 46, UNPRUNED)(queries)
    for row in range(len(queries)):
        kept = [place for place, position in enumerate(before[1][row]) if position not in gone]
        np.testing.assert_array_equal(positions[row], before[1][row][kept][:46] if len(kept) >= 46 else positions[row])
        same = [place for place, position in enumerate(before[1][row].tolist()) if position in positions[row].tolist()]
        np.testing.assert_array_equal(scores[row][: len(same)], before[0][row][same])


def test_an_index_of_the_reference_takes_and_loses_documents(tmp_path):
    copy = shutil.copytree(ROOT / "tests" / "goldens" / "plaid" / "4_bits", tmp_path / "index")
    assert add_documents(copy, clustered(3, 8, width=32)).tolist() == [13, 14, 15]
    delete_documents(copy, [0, 14])
    assert len(consistent(copy)) == 16


@pytest.mark.parametrize(
    ("positions", "problem"),
    [([61], "position 61.*0 to 60"), ([-1], "position -1"), ([5, 7], "position 5 is deleted already")],
)
def test_a_wrong_position_changes_nothing(copy, positions, problem):
    delete_documents(copy, [5])
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with pytest.raises(InputError, match=problem):
        delete_documents(copy, positions)
    assert before == {path.name: path.read_bytes() for path in copy.iterdir()}


def test_vectors_of_another_width_are_refused(copy):
    with pytest.raises(InputError, match="token vectors of 24 dimensions, and the index has 16"):
        add_documents(copy, clustered(2, 1, width=24))


@pytest.mark.parametrize("place", ["write_chunk", "write_facts", "write_all_lists"])
def test_a_full_disk_leaves_the_index_as_it_was(copy, monkeypatch, place):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(update, place, full)
    with pytest.raises(OSError, match="No space left"):
        delete_documents(copy, [5])
    with pytest.raises(OSError, match="No space left"):
        add_documents(copy, clustered(2, 1))
    assert [path.name for path in copy.parent.iterdir()] == ["index"]
    assert before == {path.name: path.read_bytes() for path in copy.iterdir()}
    PlaidIndex.load(copy)
