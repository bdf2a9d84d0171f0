import jax
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.runtime.mesh import device_mesh
from jaxret.search import blocks, device_memory
from jaxret.search.blocks import MODES, BlockSizes
from jaxret.search.device_memory import check_devices, fits_devices, least_free, placed_bytes
from jaxret.search.exact import ExactSearch
from jaxret.search.folder import Folder
from jaxret.search.store import StoredVectors, seal, shard_bounds, write_shard
from tests.search.test_exact import VOCAB, vectors


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setitem(blocks.SIZES, "cpu", BlockSizes(documents=8, tile_tokens=128, tiles=2))


@pytest.fixture
def told(monkeypatch):
    """Lets every device say that it may hold so many bytes, the last of them with some in use."""

    def tell(limit, in_use=0):
        last = jax.devices()[1].id

        def stats(device):
            return {"bytes_limit": limit, "bytes_in_use": in_use if device.id == last else 0}

        monkeypatch.setattr(device_memory, "memory_stats", stats)

    return tell


@pytest.fixture(scope="module")
def corpus():
    return vectors(61, 4)


@pytest.fixture(scope="module")
def stored(corpus, tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("store"))
    for number, (start, stop) in enumerate(shard_bounds(61, 20)):
        write_shard(folder, number, [""] * (stop - start), corpus.part(start, stop))
    seal(folder, 4, {})
    return StoredVectors(folder.place)


@pytest.fixture
def two():
    return device_mesh((-1, 1, 1), jax.devices()[:2])


def test_cpus_say_nothing(corpus, two):
    assert least_free(two) is None and fits_devices("dense", corpus, two, (0, 1))
    check_devices(two, 2**60, "this", "Nothing.")


def test_the_fullest_device_decides(two, told):
    told(5 * 10**9, 3 * 10**9)
    assert least_free(two) == (str(jax.devices()[1]), 2 * 10**9, 5 * 10**9)
    with pytest.raises(
        InputError, match=r"1: this would take 3\.00 GB of it, and of 5\.00 GB 2\.00 are free\. Mend it"
    ):
        check_devices(two, 3 * 10**9, "this", "Mend it.")


@pytest.mark.parametrize("mode", MODES)
def test_a_corpus_takes_what_is_counted(corpus, stored, two, mode):
    for documents, share in ((corpus, (0, 1)), (stored, (0, 1)), (stored, (1, 2))):
        search = ExactSearch(mode, documents, two, 3, VOCAB, share=share, lexical_form="pairwise")
        groups = [kept() for kept in search._searched.held]
        placed = sum(x.nbytes for group in groups for x in jax.tree.leaves(group.block) if x.dtype != bool)
        assert placed_bytes(mode, documents, two, share) == placed / 2


@pytest.mark.parametrize("mode", MODES)
def test_a_corpus_that_does_not_fit_is_refused_or_streamed(stored, two, told, mode, compilations):
    queries, settings = vectors(6, 3), {"vocab_size": VOCAB, "lexical_form": "pairwise"}
    needed = placed_bytes(mode, stored, two, (0, 1))
    told(10**9, 10**9 - needed + 1)
    with pytest.raises(InputError, match=rf"1: the corpus \({mode}\) would take .* Give memory_budget_gb"):
        ExactSearch(mode, stored, two, 5, **settings)
    assert not compilations
    told(10**9, 10**9 - needed)
    kept = ExactSearch(mode, stored, two, 5, **settings)
    told(10**9)
    expected = kept(queries)
    told(10**9, 10**9 - needed + 1)
    streamed = ExactSearch(mode, stored, two, 5, memory_budget_gb=100, **settings)
    assert kept._searched.held and streamed._searched.held is None
    compilations.clear()
    told(10**9, 10**9 - 100)
    with pytest.raises(InputError, match=r"1: a search of 6 queries would take .*\. Ask fewer queries at a time"):
        streamed(queries)
    assert not compilations
    told(10**9)
    found = streamed(queries)
    assert found[0].tobytes() == expected[0].tobytes() and np.array_equal(found[1], expected[1])


def test_what_is_searched_on_the_host_is_not_counted(corpus, two, told):
    told(1)
    assert ExactSearch("lexical", corpus, two, 5, VOCAB)(vectors(2, 3))[0].shape == (2, 5)
