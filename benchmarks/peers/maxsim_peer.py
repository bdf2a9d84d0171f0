"""One exact MaxSim peer in its own environment: scores all documents for all queries each time it is told to go.

Run by benchmarks/maxsim_vs_peers.py as `python maxsim_peer.py LIBRARY DTYPE DATA.npz`.
"""

import sys
import time

import numpy as np
import torch

library, dtype_name, path = sys.argv[1:]
dtype = getattr(torch, dtype_name)
data = np.load(path)
offsets, k = data["offsets"], int(data["k"])
queries = torch.from_numpy(data["queries"]).to(dtype)
tokens = torch.from_numpy(data["tokens"]).to(dtype)
documents = [tokens[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def pylate_scores(batch: int) -> torch.Tensor:
    """PyLate's scorer over length-sorted batches of padded documents."""
    from pylate.scores import colbert_scores

    parts = []
    for padded, mask in BATCHES[batch]:
        parts.append(colbert_scores(queries, padded, documents_mask=mask).float())
    return torch.cat(parts, dim=1)


def st_scores(elements: int) -> torch.Tensor:
    """sentence-transformers' scorer over the ragged, length-sorted documents."""
    from sentence_transformers.util import maxsim

    return maxsim(queries, SORTED, chunk_elements=elements)


def maxsim_cpu_scores(documents: int) -> torch.Tensor:
    """maxsim-cpu's scorer, which takes a query at a time, over groups of ragged documents."""
    from maxsim_cpu import maxsim_scores_variable

    groups = [ARRAYS[start : start + documents] for start in range(0, len(ARRAYS), documents)]
    rows = [np.concatenate([maxsim_scores_variable(query, group) for group in groups]) for query in queries.numpy()]
    return torch.from_numpy(np.stack(rows))


ORDER = sorted(range(len(documents)), key=lambda i: len(documents[i]))
SORTED = [documents[i] for i in ORDER]
ARRAYS = [document.numpy() for document in SORTED] if library == "maxsim_cpu" else []
BATCHES = {}
for size in (4, 8, 16, 64):
    BATCHES[size] = []
    for start in range(0, len(SORTED), size):
        group = SORTED[start : start + size]
        padded = torch.nn.utils.rnn.pad_sequence(group, batch_first=True)
        lengths = torch.tensor([len(d) for d in group])
        BATCHES[size].append((padded, (torch.arange(padded.shape[1])[None] < lengths[:, None]).to(dtype)))
SCORE, SETTINGS = {
    "pylate": (pylate_scores, (4, 8, 16, 64)),
    "sentence_transformers": (st_scores, (2_000_000, 10_000_000, 100_000_000)),
    "maxsim_cpu": (maxsim_cpu_scores, (250, 1000, 5000)),
}[library]


def run(setting: int) -> tuple[float, np.ndarray]:
    """Seconds, and the ids of the best k."""
    start = time.perf_counter()
    with torch.inference_mode():
        best = torch.topk(SCORE(setting), k, dim=1)
    seconds = time.perf_counter() - start
    return seconds, np.asarray(ORDER)[best.indices.numpy()]


best = min(SETTINGS, key=lambda setting: min(run(setting)[0] for _ in range(2)))
print(f"ready {best}", flush=True)
for _ in sys.stdin:
    seconds, ids = run(best)
    print(seconds, *ids[:, 0], flush=True)
