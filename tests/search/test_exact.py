import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.ops.block_scores import QueryTokens, Rows, Terms, Tiles
from jaxret.ops.topk import EMPTY, TopK
from jaxret.runtime.mesh import device_mesh
from jaxret.search import blocks, by_vocabulary, exact, on_devices, query_batches
from jaxret.search.blocks import MODES as SEARCHED
from jaxret.search.blocks import BlockSizes
from jaxret.search.dtypes import DTYPES, decoded, stored_as
from jaxret.search.exact import ExactSearch
from jaxret.search.folder import Folder
from jaxret.search.on_devices import programs
from jaxret.search.store import StoredVectors, seal, shard_bounds, write_shard
from jaxret.search.top_k import NOTHING
from jaxret.search.top_k import TopK as HostTopK
from jaxret.search.vectors import Ragged, Vectors

MODES = (*SEARCHED, "pairwise")  # the last is lexical too, and "lexical" by vocabulary here, where devices are CPUs
VOCAB, QUERIES = 30, 6
# One document, fewer than devices, ragged last blocks.
SIZES = (1, 3, 61)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setitem(blocks.SIZES, "cpu", BlockSizes(documents=8, tile_tokens=128, tiles=2))
    monkeypatch.setattr(query_batches, "BATCH", (2, 4))
    monkeypatch.setattr(by_vocabulary, "BLOCK", 8)
    monkeypatch.setattr(by_vocabulary, "PORTION", 4)


def vectors(count, seed, longest=24):
    """Random vectors; among documents 0, 7, 14, ... every one is a copy of the first, and some texts have no token."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        if number % 7 == 0 and number:
            rows.append(rows[0])
            continue
        length = 0 if number % 10 == 3 else int(random.integers(1, longest + 1))
        terms = np.sort(random.choice(VOCAB, size=min(length, 20), replace=False)).astype(np.int32)
        tokens = random.normal(size=(length, 5)).astype(np.float32)
        rows.append(
            (random.normal(size=4).astype(np.float32), tokens, terms, random.random(len(terms)).astype(np.float32))
        )
    dense, tokens, terms, weights = zip(*rows, strict=True)
    return Vectors(np.stack(dense), *(Ragged.from_rows(part) for part in (tokens, terms, weights)))


def oracle(mode, queries, corpus):
    """All scores in float64, one pair at a time."""
    scores = np.zeros((len(queries), len(corpus)))
    for i, j in np.ndindex(scores.shape):
        if mode == "dense":
            scores[i, j] = np.float64(queries.dense[i]) @ np.float64(corpus.dense[j])
        elif mode in ("lexical", "pairwise"):
            found = dict(zip(corpus.term_ids.row(j), corpus.term_weights.row(j), strict=True))
            pairs = zip(queries.term_ids.row(i), queries.term_weights.row(i), strict=True)
            scores[i, j] = sum(float(w) * float(found.get(term, 0.0)) for term, w in pairs)
        else:
            q, d = np.float64(queries.tokens.row(i)), np.float64(corpus.tokens.row(j))
            scores[i, j] = sum(max(x @ y for y in d) for x in q) if len(d) else 0.0
    return scores


def search(mode, corpus, num_devices, k, **settings):
    mode, form = ("lexical", "pairwise") if mode == "pairwise" else (mode, None)
    mesh = device_mesh((-1, 1, 1), jax.devices()[:num_devices])
    return ExactSearch(mode, corpus, mesh, k, VOCAB, lexical_form=form, **settings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [8, 61])
def test_the_best_documents_equal_a_sort_of_all_scores(mode, count):
    queries, corpus = vectors(QUERIES, 1), vectors(count, 2)
    for k in sorted({min(5, count), count}):
        scores, positions = search(mode, corpus, 1, k)(queries)
        expected = oracle(mode, queries, corpus)
        ranked = np.stack([np.lexsort((np.arange(count), -row))[:k] for row in np.round(expected, 10)])
        np.testing.assert_array_equal(positions, ranked)
        np.testing.assert_allclose(scores, np.take_along_axis(expected, ranked, axis=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", SIZES)
def test_any_number_of_devices_gives_the_same_bits(mode, count):
    queries, corpus = vectors(QUERIES, 3), vectors(count, 4)
    k = min(count, 30)
    scores, positions = search(mode, corpus, 1, k)(queries)
    assert scores.shape == positions.shape == (QUERIES, k)
    for num_devices in (2, 4, 8):
        more = search(mode, corpus, num_devices, k)(queries)
        np.testing.assert_array_equal(more[1], positions, err_msg=f"{num_devices} devices")
        assert more[0].tobytes() == scores.tobytes(), f"{num_devices} devices"


def test_a_mesh_of_three_axes_gives_the_same_bits():
    queries, corpus = vectors(QUERIES, 3), vectors(61, 4)
    scores, positions = search("multi_vector", corpus, 1, 10)(queries)
    more = ExactSearch("multi_vector", corpus, device_mesh((2, 2, 2)), 10, VOCAB)(queries)
    np.testing.assert_array_equal(more[1], positions)
    assert more[0].tobytes() == scores.tobytes()


def test_documents_of_one_length_tie_wherever_they_lie():
    """Sums of small integers are exact, so that every copy of a document has its very score."""
    random = np.random.default_rng(0)
    kinds = [random.integers(-2, 3, (10, 5)).astype(np.float32) for _ in range(3)]
    corpus = Vectors(tokens=Ragged.from_rows([kinds[i] for i in random.integers(0, 3, 50)]))
    queries = Vectors(tokens=Ragged.from_rows([random.integers(-2, 3, (4, 5)).astype(np.float32) for _ in range(3)]))
    scores = oracle("multi_vector", queries, corpus)
    for num_devices in (1, 8):
        found = search("multi_vector", corpus, num_devices, 50)(queries)
        np.testing.assert_array_equal(found[1], [np.lexsort((np.arange(50), -row)) for row in scores])
        np.testing.assert_array_equal(found[0], -np.sort(-scores, axis=1))


def test_short_queries_have_the_scores_that_they_have_among_long_ones(monkeypatch):
    """Sums of small integers are exact, so that no order of them rounds."""
    random = np.random.default_rng(0)

    def texts(lengths):
        return Vectors(tokens=Ragged.from_rows([random.integers(-2, 3, (n, 5)).astype(np.float32) for n in lengths]))

    queries, corpus = texts([3, 40, 0, 8, 17, 70, 9, 5, 33]), texts([4, 11, 20, 7, 4])
    shapes = [
        part.mask.shape for batches, _ in query_batches.query_batches("multi_vector", queries, 0) for part in batches
    ]
    assert shapes == [(4, 72), (4, 16), (4, 8)], "of 70, 40, 33, 17, of 9, 8, 5, 3 and of 0 tokens"
    found = search("multi_vector", corpus, 1, 5)(queries)
    scores = oracle("multi_vector", queries, corpus)
    np.testing.assert_array_equal(found[1], [np.lexsort((np.arange(5), -row)) for row in scores])
    np.testing.assert_array_equal(found[0], -np.sort(-scores, axis=1))
    monkeypatch.setattr(query_batches, "LENGTH", 72)
    padded = search("multi_vector", corpus, 1, 5)(queries)
    assert found[0].tobytes() == padded[0].tobytes() and found[1].tobytes() == padded[1].tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_a_query_is_scored_alike_alone_and_among_others(mode):
    corpus, queries = vectors(20, 5), vectors(QUERIES, 6)
    ranked = search(mode, corpus, 1, 5)
    scores, positions = ranked(queries)
    for i in (0, QUERIES - 1):
        one = Vectors(
            queries.dense[i : i + 1],
            *(Ragged.from_rows([part.row(i)]) for part in (queries.tokens, queries.term_ids, queries.term_weights)),
        )
        alone = ranked(one)
        np.testing.assert_array_equal(alone[1], positions[i : i + 1])
        np.testing.assert_allclose(alone[0], scores[i : i + 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_no_query_gives_no_result(mode):
    queries = Vectors(
        np.zeros((0, 4), np.float32),
        *(
            Ragged(np.zeros((0, *w), d), np.zeros(1, np.int64))
            for d, w in ((np.float32, (5,)), (np.int32, ()), (np.float32, ()))
        ),
    )
    scores, positions = search(mode, vectors(3, 0), 1, 2)(queries)
    assert scores.shape == positions.shape == (0, 2)


def test_products_of_bfloat16_vectors_are_summed_in_float32():
    queries, corpus = vectors(QUERIES, 1), vectors(20, 2)
    half = ExactSearch("multi_vector", corpus, device_mesh(), 20, dtype="bfloat16")(queries)
    scores = oracle("multi_vector", queries, corpus)
    assert half[0].dtype == np.float32
    np.testing.assert_allclose(half[0], np.take_along_axis(scores, half[1], axis=1), rtol=0.05, atol=0.1)
    assert len(np.unique(half[0])) > len(np.unique(np.asarray(half[0], jnp.bfloat16)))


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_progress_hears_of_every_document(mode):
    counts = []
    search(mode, vectors(21, 0), 1, 2)(vectors(4, 1), counts.append)
    assert sorted(counts) == [5, 8, 8]


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_progress_hears_of_every_document_once_however_many_queries(monkeypatch, mode):
    monkeypatch.setattr(query_batches, "PORTION_BYTES", 1)
    counts = []
    search(mode, vectors(21, 0), 1, 2)(vectors(QUERIES, 1), counts.append)
    assert len(counts) == 6 and sum(counts) == 21, "two portions of queries"


def test_an_error_in_one_lane_ends_the_search(monkeypatch):
    ranked, groups = search("pairwise", vectors(400, 0), 1, 2), []

    def step(best, queries, block, positions):
        groups.append(positions)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ranked._searched, "_step", step)
    with pytest.raises(RuntimeError, match="out of memory"):
        ranked(vectors(1, 1))
    assert len(groups) <= ranked._searched.lanes < 400 // 8


@pytest.mark.parametrize("k", [0, 4, -1])
def test_k_beyond_the_corpus_is_an_input_error(k):
    with pytest.raises(InputError, match=rf"^k: {k} results of a corpus of 3 documents\. Give 1 to 3"):
        search("dense", vectors(3, 0), 1, k)


def test_an_unknown_mode_is_an_input_error():
    with pytest.raises(InputError, match=r"^mode: unknown 'sparse'\. Choose one of dense, lexical, multi_vector"):
        search("sparse", vectors(3, 0), 1, 1)


@pytest.mark.parametrize(("mode", "part"), [("dense", "dense"), ("lexical", "term_ids"), ("multi_vector", "tokens")])
def test_only_the_representation_of_the_mode_is_needed(mode, part):
    whole = vectors(3, 0)
    without = dataclasses.replace(whole, **{part: None})
    with pytest.raises(InputError, match=rf"^vectors: '{part}' is missing"):
        search(mode, without, 1, 1)
    for other in set(SEARCHED) - {mode}:
        search(other, without, 1, 1)


@pytest.mark.parametrize("mode", MODES)
def test_sizes_of_blocks_and_batches_change_rounding_at_most(mode, monkeypatch):
    """On some processors not even that, see `search.blocks`; equal documents may change places."""
    queries, corpus = vectors(QUERIES, 8), vectors(300, 9)
    monkeypatch.setitem(blocks.SIZES, "cpu", BlockSizes(128, 128, 1))
    found = search(mode, corpus, 1, 30)(queries)
    for sizes, batch in ((BlockSizes(256, 256, 3), (2, 4)), (BlockSizes(1024, 1024, 2), (8, 64))):
        monkeypatch.setitem(blocks.SIZES, "cpu", sizes)
        monkeypatch.setattr(query_batches, "BATCH", batch)
        again = search(mode, corpus, 1, 30)(queries)
        np.testing.assert_allclose(again[0], found[0], rtol=1e-6, atol=1e-6)
        exact_scores = oracle(mode, queries, corpus)
        np.testing.assert_allclose(
            *(np.take_along_axis(exact_scores, positions, axis=1) for _, positions in (again, found)), atol=2e-6
        )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """61 documents in shards of 7, in each dtype, and the same in memory."""
    found, whole = {}, vectors(61, 4)
    for dtype in DTYPES:
        folder = tmp_path_factory.mktemp("stores") / dtype
        for number, (start, stop) in enumerate(shard_bounds(61, 7)):
            write_shard(Folder(folder), number, [""] * (stop - start), stored_as(whole.part(start, stop), dtype))
        seal(Folder(folder), 9, {})
        found[dtype] = folder, stored_as(whole, dtype)
    return found


@pytest.mark.parametrize("limit", [1, 150, 10**9])
@pytest.mark.parametrize(("mode", "dtype"), [*((mode, "float32") for mode in MODES), ("multi_vector", "int8")])
def test_a_stream_gives_the_bits_of_memory(stored, mode, dtype, limit, monkeypatch):
    folder, whole = stored[dtype]
    queries = vectors(QUERIES, 3)
    expected = search(mode, whole, 1, 30)(queries)
    monkeypatch.setattr(exact, "fits", lambda *_: False)
    for room in (on_devices, by_vocabulary):
        monkeypatch.setattr(room, "part_bytes", lambda *_: limit)
    for num_devices in (1, 8):
        streamed = search(mode, StoredVectors(folder), num_devices, 30, memory_budget_gb=1)
        for _ in range(2):
            found = streamed(queries)
            np.testing.assert_array_equal(found[1], expected[1])
            assert found[0].tobytes() == expected[0].tobytes()


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("mode", ["dense", "multi_vector"])
def test_vectors_in_fewer_bytes_are_searched_as_what_they_stand_for(stored, mode, dtype):
    folder, whole = stored[dtype]
    queries = vectors(QUERIES, 1)
    scores, positions = search(mode, StoredVectors(folder), 1, 61)(queries)
    expected = oracle(mode, queries, decoded(whole))
    np.testing.assert_allclose(scores, np.take_along_axis(expected, positions, axis=1), rtol=1e-5, atol=1e-5)
    assert (np.sort(positions, axis=1) == np.arange(61)).all()
    assert np.abs(expected - oracle(mode, queries, vectors(61, 4))).max() > 1e-3, "the store has lost something"


def test_a_damaged_store_ends_the_search(stored, tmp_path):
    folder = shutil.copytree(stored["int8"][0], tmp_path / "store")
    file = folder / "shard-00004" / "tokens" / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=rf"^{file}: damaged"):
        search("multi_vector", StoredVectors(folder), 1, 3)


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_a_budget_that_is_taken_already_is_an_input_error(stored, monkeypatch, mode):
    monkeypatch.setattr(exact, "fits", lambda *_: False)
    streamed = search(mode, StoredVectors(stored["int8"][0]), 1, 3, memory_budget_gb=0.1)
    with pytest.raises(InputError, match=r"^memory_budget_gb: 0\.1 GB, where the process holds .* GB.*Give \d"):
        streamed(vectors(QUERIES, 1))


@pytest.mark.parametrize("mode", ["multi_vector", "lexical"])
@pytest.mark.parametrize("from_disk", [True, False])
def test_shares_of_a_corpus_have_the_whole_between_them(stored, monkeypatch, from_disk, mode):
    """What processes would exchange, one after the other."""
    queries = vectors(QUERIES, 3)
    folder, corpus = stored["float32"]
    corpus = StoredVectors(folder) if from_disk else corpus
    expected, best = search(mode, corpus, 1, 30)(queries), HostTopK(QUERIES, 30)

    def exchanged(scores, positions):
        assert (positions == EMPTY).any(), "a share has fewer than 30"
        best.add(scores, np.where(positions == EMPTY, NOTHING, positions))
        return scores, positions

    monkeypatch.setattr(exact, "best_of_processes", exchanged)
    for number in range(3):
        search(mode, corpus, 1, 30, share=(number, 3))(queries)
    np.testing.assert_array_equal(best.positions, expected[1])
    assert best.scores.tobytes() == expected[0].tobytes()


def compiled(mode, documents):
    """The step for blocks of so many documents."""
    blocks = {
        "dense": Rows(np.zeros((1, documents, 16), np.float32)),
        "lexical": Terms(np.zeros((1, documents, 24), np.int32), np.zeros((1, documents, 24), np.float32)),
        "multi_vector": Tiles(np.zeros((1, documents // 8, 8, 16, 16), np.float32), np.ones((1, documents // 8), bool)),
    }
    queries = {
        "dense": np.zeros((4, 16), np.float32),
        "lexical": np.zeros((100, 4), np.float32),
        "multi_vector": QueryTokens(np.zeros((4, 8, 16), np.float32), np.ones((4, 8), bool)),
    }
    mesh = device_mesh((1, 1, 1), jax.devices()[:1])
    best = TopK(np.zeros((1, 4, 10), np.float32), np.zeros((1, 4, 10), np.int32))
    positions = np.zeros((1, documents), np.int32)
    step = programs(SEARCHED[mode].score, 10, mesh).step
    return step.lower(best, queries[mode], blocks[mode], positions).compile()


def test_maxsim_holds_the_products_of_one_tile():
    few, many = (compiled("multi_vector", documents).memory_analysis().temp_size_in_bytes for documents in (64, 512))
    scores = 4 * 4 * (512 - 64)
    assert few > 0 and many - few < 8 * scores, "products of 512 x 16 x 4 x 8 tokens would be a megabyte"
