"""Encodes a corpus and searches it as one of two processes: python two_processes.py '{settings as JSON}'."""

import json
import pickle
import sys
from pathlib import Path

import jax
import numpy as np

from jaxret.data.beir import read_corpus
from jaxret.eval.retrieval import RetrievalEvaluation
from jaxret.runtime.mesh import device_mesh
from jaxret.runtime.model import Model
from jaxret.runtime.processes import join_processes
from jaxret.search.corpus import encode_corpus, open_store
from jaxret.search.encode import TextEncoder
from jaxret.search.exact import ExactSearch


def main(folder, data, questions, k, distributed):
    """Writes the scores and positions of every mode, and metrics, to `<process>-<processes>.npz`."""
    if distributed:
        join_processes()
    folder, number, count = Path(folder), jax.process_index(), jax.process_count()
    model, params = Model.load_description(folder), pickle.loads((folder / "params.pickle").read_bytes())
    encoder = TextEncoder(model, params, device_mesh((-1, 1, 1), jax.local_devices()))
    corpus = read_corpus(data)
    store = encode_corpus(encoder, corpus, folder / f"store-{count}", shard_documents=5, dtype="int8")
    stored, queries, found = open_store(store, encoder, corpus), encoder.queries(questions), {}
    for mode in model.config.heads:
        vocabulary = model.config.encoder.vocab_size
        search = ExactSearch(mode, stored, encoder.mesh, k, vocabulary, share=(number, count))
        found[f"{mode} scores"], found[f"{mode} positions"] = search(queries)
    # The model over all devices, as in training; no process has the whole of it.
    mesh = device_mesh((1, -1, 1))
    placed = jax.tree.map(
        lambda x, like: jax.make_array_from_callback(x.shape, like.sharding, x.__getitem__),
        params,
        model.abstract_params(mesh),
    )
    evaluation = RetrievalEvaluation(data, "train", measures=("ndcg@10", "RR@10"), k=20)
    metrics = evaluation(model, placed)
    assert [where for _, where in evaluation._programs] == [mesh]
    found |= {name: np.float64(value) for name, value in metrics.items()}
    np.savez(folder / f"{number}-{count}.npz", **found)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
