"""Indexes that jaxret wrote, opened by torch and searched by ColBERT's formulas."""

import json

import jax
import numpy as np
import pytest
import torch

from jaxret.ops.topk import EMPTY
from jaxret.runtime.mesh import device_mesh
from jaxret.search.plaid.build import PlaidSettings, build_plaid
from jaxret.search.plaid.index import PlaidIndex
from jaxret.search.plaid.search import PlaidSearch
from jaxret.search.plaid.stages import Pruning
from jaxret.search.plaid.update import add_documents, delete_documents
from jaxret.search.vectors import Ragged, Vectors
from tests.parity import make_plaid
from tests.parity.make_plaid import DIM, NCELLS, NDOCS, THRESHOLD


class Held:
    def __init__(self, rows):
        self.rows, self.starts = rows, np.asarray([0, 7, len(rows)])

    def shard(self, number):
        return vectors(self.rows[self.starts[number] : self.starts[number + 1]])


def vectors(rows):
    return Vectors(tokens=Ragged.from_rows([row.numpy() for row in rows]))


@pytest.mark.parametrize("nbits", make_plaid.BITS)
def test_torch_reads_our_files_and_finds_what_we_find(tmp_path, nbits):
    _, rows, queries = make_plaid.documents()
    folder = tmp_path / "plaid"
    build_plaid(Held(rows), folder, PlaidSettings(nbits=nbits, num_centroids=8))
    add_documents(folder, vectors(rows[:3]))
    delete_documents(folder, [4, 13])

    def read(name):
        return torch.load(folder / name, weights_only=True)

    chunks = range(json.loads((folder / "metadata.json").read_text())["num_chunks"])
    centroids, (cutoffs, weights) = read("centroids.pt").float(), read("buckets.pt")
    codes = torch.cat([read(f"{n}.codes.pt") for n in chunks])
    bits = torch.cat([read(f"{n}.residuals.pt") for n in chunks])
    lengths = [length for n in chunks for length in json.loads((folder / f"doclens.{n}.json").read_text())]
    assert len(lengths) == 16 and lengths[4] == lengths[13] == 0 and read("avg_residual.pt").ndim == 0
    pids, sizes = read("ivf.pid.pt")
    owners = torch.repeat_interleave(torch.tensor(lengths))
    lists = [torch.unique(owners[codes == number]) for number in range(len(centroids))]
    assert [len(part) for part in lists] == sizes.tolist()
    assert torch.equal(pids[: int(sizes.sum())], torch.cat(lists).int())
    assert pids.dtype == torch.int32 and len(cutoffs) == 2**nbits - 1 and centroids.shape == (8, DIM)

    expected = torch.nn.functional.normalize(
        centroids[codes.long()] + make_plaid.unpacked(bits, weights, nbits), dim=-1
    )
    index = PlaidIndex.load(folder)
    np.testing.assert_allclose(index.decompressed(np.arange(16)).values, expected, atol=1e-6)
    pruning, mesh = Pruning(NCELLS, THRESHOLD, NDOCS), device_mesh((-1, 1, 1), jax.devices()[:1])
    for query in queries:
        scores, found = make_plaid.ranked(query, centroids, codes.long(), expected, index.starts)
        ours, positions = PlaidSearch(index, mesh, 6, pruning)(vectors([query]))
        kept = positions[0] != EMPTY
        np.testing.assert_allclose(ours[0][kept], scores, rtol=1e-5, atol=1e-5)
        assert len(set(positions[0][kept].tolist()) ^ set(found.tolist())) == 0
