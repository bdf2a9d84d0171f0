import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.search.plaid import build
from jaxret.search.plaid.build import PlaidSettings, build_plaid
from jaxret.search.plaid.codec import published_number_of_centroids, trained_codec
from jaxret.search.plaid.index import PlaidIndex
from jaxret.search.vectors import Ragged, Vectors
from tests.conftest import ROOT
from tests.search.plaid.conftest import Held, built, clustered


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_codec_is_what_its_formulas_say(corpus):
    vectors = corpus.tokens.values
    codec = trained_codec(vectors, nbits=2, num_centroids=16, seed=3)
    np.testing.assert_allclose(np.linalg.norm(codec.centroids, axis=1), 1, atol=1e-3)
    held_out = vectors[np.random.default_rng(3).permutation(len(vectors))[: int(0.05 * len(vectors))]]
    residuals = np.sort((held_out - codec.centroids[np.argmax(held_out @ codec.centroids.T, axis=1)]).ravel())
    # A quantile is a point between two of the sorted values.
    at = lambda part: np.interp(part * (len(residuals) - 1), np.arange(len(residuals)), residuals)  # noqa: E731
    np.testing.assert_allclose(codec.cutoffs, [at(0.25), at(0.5), at(0.75)], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(codec.weights, [at(0.125), at(0.375), at(0.625), at(0.875)], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(codec.avg_residual, np.abs(residuals).mean(), rtol=1e-5)
    first = trained_codec(vectors, nbits=2, num_centroids=16, kmeans_niters=0, seed=3)
    assert codec.avg_residual < first.avg_residual, "k-means brings the centroids nearer"


def test_more_bits_come_nearer_and_pooling_takes_less(tmp_path, corpus):
    index = {bits: PlaidIndex.load(built(tmp_path / str(bits), corpus, nbits=bits)) for bits in (1, 2, 4)}
    error = [((one.decompressed(np.arange(61)).values - corpus.tokens.values) ** 2).mean() for one in index.values()]
    assert error[0] > error[1] > error[2]
    less = PlaidIndex.load(built(tmp_path / "pooled", corpus, pool_factor=2))
    np.testing.assert_array_equal(
        less.lengths, np.where(corpus.tokens.lengths > 1, corpus.tokens.lengths // 2, corpus.tokens.lengths)
    )


def test_the_published_number_of_centroids():
    counts = {1: 16, 100: 128, 1_000_000: 8192, 1024 * 1024: 16384}
    assert {count: published_number_of_centroids(count) for count in counts} == counts


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_build_that_was_killed_goes_on_and_gives_the_same_bytes(tmp_path, corpus, folder, monkeypatch, at):
    write, target = build.write_chunk, tmp_path / "plaid"

    def dying(place, number, *rest):
        if number == at:
            raise KeyboardInterrupt
        write(place, number, *rest)

    monkeypatch.setattr(build, "write_chunk", dying)
    with pytest.raises(KeyboardInterrupt):
        built(target, corpus)
    assert not target.exists()
    (tmp_path / ".plaid.building" / f".{at}.codes.pt.x1").write_bytes(b"half")
    written = []
    monkeypatch.setattr(build, "write_chunk", lambda *parts: (written.append(parts[1]), write(*parts)))
    monkeypatch.setattr(build, "trained_codec", None)  # the codec is there already
    built(target, corpus)
    assert written == list(range(at, 4)), "what was done is not done again"
    assert contents(target) == contents(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["plaid"]


def test_sigkill_then_the_same_command(tmp_path, folder):
    code = f"""
import os, signal
import jaxret.search.plaid.build as build
from tests.search.plaid.conftest import built, clustered
from pathlib import Path
write = build.write_chunk
def dying(place, number, *rest):
    if number == 2 and {{}}:
        os.kill(os.getpid(), signal.SIGKILL)
    write(place, number, *rest)
build.write_chunk = dying
built(Path({str(tmp_path / "plaid")!r}), clustered(61, 1, empty=(3, 30)))
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    for dies, code_of_exit in ((True, -signal.SIGKILL), (False, 0)):
        done = subprocess.run([sys.executable, "-c", code.format(dies)], cwd=ROOT, env=environment)
        assert done.returncode == code_of_exit
    assert contents(tmp_path / "plaid") == contents(folder)


def test_nothing_goes_on_with_what_is_left_of_a_finished_build(tmp_path, corpus, folder, monkeypatch):
    def dying(place):
        (place / "1.codes.pt").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "shutil", SimpleNamespace(rmtree=dying))
        with pytest.raises(KeyboardInterrupt):
            built(tmp_path / "plaid", corpus)
    assert (tmp_path / ".plaid.building").exists()
    built(tmp_path / "plaid", corpus)
    assert contents(tmp_path / "plaid") == contents(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["plaid"]


def test_other_settings_or_another_corpus_start_again(tmp_path, corpus, monkeypatch):
    def dying(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_facts", dying)
        with pytest.raises(KeyboardInterrupt):
            built(tmp_path / "plaid", corpus, nbits=4)
    built(tmp_path / "plaid", corpus, nbits=1)
    assert PlaidIndex.load(tmp_path / "plaid").codec.nbits == 1


def test_a_new_index_takes_the_old_one_s_place_at_the_end_only(tmp_path, corpus, monkeypatch):
    built(tmp_path / "plaid", clustered(5, 3))
    before = contents(tmp_path / "plaid")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(build, "link", full)
        with pytest.raises(OSError, match="No space left"):
            built(tmp_path / "plaid", corpus)
    assert contents(tmp_path / "plaid") == before
    built(tmp_path / "plaid", corpus)
    assert len(PlaidIndex.load(tmp_path / "plaid")) == 61


@pytest.mark.parametrize(
    ("settings", "scale", "width", "problem"),
    [
        ({"nbits": 3}, 1, 16, "nbits: 3. Choose one of 1, 2, 4"),
        ({"num_centroids": 0}, 1, 16, "num_centroids: 0"),
        ({}, 2, 16, "a token vector of length 2.000"),
        ({}, np.nan, 16, "a token vector of length nan"),
        ({}, 1, 12, "12 dimensions, no multiple of 8"),
    ],
)
def test_what_cannot_be_compressed_is_named(tmp_path, settings, scale, width, problem):
    tokens = clustered(3, 1, width=width).tokens
    vectors = Vectors(tokens=Ragged(tokens.values * scale, tokens.offsets))
    with pytest.raises(InputError, match=problem):
        build_plaid(Held(vectors, 2), tmp_path / "plaid", PlaidSettings(**settings))


def test_a_corpus_without_tokens_is_named(tmp_path):
    nothing = Vectors(tokens=Ragged(np.zeros((0, 8), np.float32), np.zeros(3, np.int64)))
    with pytest.raises(InputError, match="documents: no token vectors to learn from"):
        build_plaid(Held(nothing, 2), tmp_path / "plaid")


def test_fewer_points_a_centroid_take_fewer_documents_into_the_sample(tmp_path, corpus, monkeypatch):
    taken = []
    sampled = build._sampled
    monkeypatch.setattr(build, "_sampled", lambda stored, rows, s: taken.append(len(rows)) or sampled(stored, rows, s))
    for points in (256, 4):
        built(tmp_path / str(points), corpus, num_centroids=8, points_per_centroid=points)
    assert taken[0] == len(corpus) and 0 < taken[1] < 10
