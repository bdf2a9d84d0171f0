"""Indexes on a disk that fills up: python full_disk.py '{settings as JSON}', in a small file system of its own."""

import errno
import json
import pickle
import sys
from pathlib import Path

import jax
import numpy as np

from jaxret.data.beir import BeirFolder
from jaxret.errors import InputError
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.search.corpus import encode_corpus, open_store
from jaxret.search.encode import TextEncoder
from jaxret.search.engine import Engine
from jaxret.search.index import build_index, load_index
from jaxret.search.plaid.build import PlaidSettings


def found(place, encoder, queries):
    """What searches of an index find."""
    index = load_index(place)
    runs = [Engine(index, encoder, mode, 5).run(queries.ids, queries.texts) for mode in ("dense", "plaid", "bm25")]
    return [(run.indices.tolist(), run.scores.tolist()) for run in runs]


def main(place, model, data):
    described, params = Model.load_description(model), pickle.loads((Path(model) / "params.pickle").read_bytes())
    encoder, place = TextEncoder(described, params, device_mesh((1, 1, 1), jax.devices()[:1])), Path(place)
    folder = BeirFolder(data)

    def indexed(nbits):
        compression = PlaidSettings(nbits=nbits, num_centroids=8)
        build_index(place / "index", encoder, Path(model), None, folder.corpus, "en", compression=compression)

    indexed(2)
    before = found(place / "index", encoder, folder.queries)
    with (place / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
    for again in (lambda: indexed(4), lambda: encode_corpus(encoder, folder.corpus, place / "other")):
        try:
            again()
        except (OSError, InputError) as error:
            print(f"{type(error).__name__}: {error}")
        assert found(place / "index", encoder, folder.queries) == before
    (place / "filler").unlink()
    indexed(4)
    after = found(place / "index", encoder, folder.queries)
    assert after[0] == before[0] and after[1] != before[1] and after[2] == before[2]
    stored = open_store(encode_corpus(encoder, folder.corpus, place / "other"), encoder, folder.corpus)
    np.testing.assert_array_equal(stored.shard(0).dense, open_store(place / "index/vectors", encoder).shard(0).dense)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
