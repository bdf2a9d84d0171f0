import json
import shutil

import jax
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.ops.topk import EMPTY
from jaxret.runtime.checksums import SUMS
from jaxret.runtime.mesh import device_mesh
from jaxret.search.plaid.files import read_lists
from jaxret.search.plaid.index import PlaidIndex, inverted_lists
from jaxret.search.plaid.search import PlaidSearch
from jaxret.search.plaid.stages import Pruning
from jaxret.search.vectors import Ragged, Vectors
from tests.conftest import ROOT

GOLDENS = ROOT / "tests" / "goldens" / "plaid"
PUBLISHED = {"centroids.pt", "buckets.pt", "avg_residual.pt", "ivf.pid.pt", "plan.json", "metadata.json"}


@pytest.fixture(params=[1, 2, 4])
def golden(request):
    folder = GOLDENS / f"{request.param}_bits"
    return PlaidIndex.load(folder), np.load(folder / "golden.npz"), folder


def test_an_index_of_the_reference_decompresses_and_compresses_as_it_does(golden):
    index, arrays, folder = golden
    np.testing.assert_array_equal(index.lengths, arrays["lengths"])
    vectors = index.decompressed(np.arange(len(index)))
    np.testing.assert_allclose(vectors.values, arrays["vectors"], atol=1e-6)
    codes, residuals = index.codec.compressed(arrays["given"].astype(np.float32))
    np.testing.assert_array_equal(codes, index.codes)
    np.testing.assert_array_equal(residuals, index.residuals)
    pids, lengths = read_lists(folder, 8)
    own = inverted_lists([(index.codes, np.repeat(np.arange(len(index)), index.lengths))], 8)
    np.testing.assert_array_equal(own[0], pids)
    np.testing.assert_array_equal(own[1], lengths)


def test_an_index_of_the_reference_is_searched_as_it_does(golden):
    index, arrays, _ = golden
    queries = Vectors(tokens=Ragged.from_rows([arrays[f"query_{n}"] for n in range(3)]))
    search = PlaidSearch(index, device_mesh((-1, 1, 1), jax.devices()[:1]), 6, Pruning(2, 0.5, 24))
    for number, (scores, positions) in enumerate(zip(*search(queries), strict=True)):
        expected = arrays[f"pids_{number}"].tolist()
        assert positions.tolist() == expected + [EMPTY] * (6 - len(expected))
        np.testing.assert_allclose(scores[: len(expected)], arrays[f"scores_{number}"], rtol=1e-5, atol=1e-5)


def test_what_is_written_are_the_published_files_and_ours(folder):
    chunks = {f"{n}.{name}" for n in range(4) for name in ("codes.pt", "residuals.pt", "metadata.json")}
    lengths = {f"doclens.{n}.json" for n in range(4)}
    assert {path.name for path in folder.iterdir()} == PUBLISHED | chunks | lengths | {"plaid.json", SUMS}
    metadata = json.loads((folder / "metadata.json").read_text())
    tokens = sum(sum(json.loads((folder / name).read_text())) for name in lengths)
    assert metadata["num_chunks"] == 4 and metadata["num_embeddings"] == tokens
    assert (metadata["config"]["dim"], metadata["config"]["nbits"]) == (16, 2)


def test_every_file_cut_short_flipped_or_missing_is_named(folder, tmp_path):
    for path in sorted(folder.iterdir()):
        for change in ("cut", "flip", "missing"):
            copy = tmp_path / f"{path.name}-{change}"
            shutil.copytree(folder, copy)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            (copy / path.name).write_bytes(data if change == "flip" else data[:-1])
            if change == "missing":
                (copy / path.name).unlink()
            with pytest.raises(InputError) as found:
                PlaidIndex.load(copy)
            assert found.value.place == str(copy / path.name), (path.name, change)


@pytest.mark.parametrize(
    ("name", "damage", "problem"),
    [
        (
            "doclens.0.json",
            lambda path: path.write_text("[1, 2]"),
            r"0\.codes\.pt: \d+ codes, but doclens\.0\.json counts 3",
        ),
        ("doclens.1.json", lambda path: path.write_text("[1, -2]"), "no list of document lengths"),
        ("metadata.json", lambda path: path.write_text("{}"), "lacks 'num_chunks'"),
        (
            "metadata.json",
            lambda path: path.write_text(path.read_text().replace("32", "64")),
            "says dim 64 and nbits 2",
        ),
        ("0.residuals.pt", lambda path: path.unlink(), "no such file"),
        ("1.codes.pt", lambda path: path.write_bytes(path.read_bytes()[:-300]), "not a readable torch file"),
        ("buckets.pt", lambda path: shutil.copy(path.parent / "centroids.pt", path), "holds float16"),
        ("centroids.pt", lambda path: shutil.copy(path.parent / "1.codes.pt", path), "holds int32"),
        ("0.codes.pt", lambda path: shutil.copy(path.parent / "1.codes.pt", path), "codes, but doclens"),
    ],
)
def test_files_of_the_reference_that_contradict_each_other_are_named(tmp_path, name, damage, problem):
    shutil.copytree(GOLDENS / "2_bits", tmp_path / "index")
    damage(tmp_path / "index" / name)
    with pytest.raises(InputError, match=problem):
        PlaidIndex.load(tmp_path / "index")


def test_a_folder_without_an_index_is_named(tmp_path):
    with pytest.raises(InputError, match=r"metadata\.json: no such file.*run the same command again"):
        PlaidIndex.load(tmp_path)
