import numpy as np
import pytest

from jaxret.search.plaid.build import PlaidSettings, build_plaid
from jaxret.search.vectors import Ragged, Vectors

WIDTH = 16


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(count, seed, longest=20, width=WIDTH, empty=(), centres=12):
    """Documents whose tokens lie around common centres; every seventh is a copy of the first."""
    random = np.random.default_rng(seed)
    around = np.random.default_rng(99).normal(size=(centres, width))
    rows = []
    for number in range(count):
        if number % 7 == 0 and number:
            rows.append(rows[0])
            continue
        length = 0 if number in empty else int(random.integers(1, longest + 1))
        chosen = around[random.integers(0, centres, size=length)]
        rows.append(unit(chosen + 0.6 * random.normal(size=(length, width))))
    return Vectors(tokens=Ragged.from_rows(rows))


class Held:
    """Vectors in shards, as a store on disk has them."""

    def __init__(self, vectors, size):
        self.vectors = vectors
        self.starts = np.asarray([*range(0, len(vectors), size), len(vectors)])

    def shard(self, number):
        rows = range(self.starts[number], self.starts[number + 1])
        return Vectors(tokens=Ragged.from_rows([self.vectors.tokens.row(row) for row in rows]))


def built(folder, vectors, size=16, **settings):
    build_plaid(Held(vectors, size), folder, PlaidSettings(**settings))
    return folder


@pytest.fixture(scope="session")
def corpus():
    return clustered(61, 1, empty=(3, 30))


@pytest.fixture(scope="session")
def queries():
    """Five queries of different lengths, one of them of one token."""
    random = np.random.default_rng(5)
    source = clustered(10, 6)
    lengths = (3, 9, 1, 4, 5)
    return Vectors(
        tokens=Ragged.from_rows(
            [
                source.tokens.row(1 + n)[:4].repeat(3, 0)[:length] * random.uniform(0.5, 1.5)
                for n, length in enumerate(lengths)
            ]
        )
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory, corpus):
    """An index of the corpus in four chunks."""
    return built(tmp_path_factory.mktemp("index") / "plaid", corpus)
