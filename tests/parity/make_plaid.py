"""Writes tests/goldens/plaid: small PLAID indexes, laid out as ColBERT does. Run python -m tests.parity.make_plaid.

The formulas are those of its indexing and search on a CPU, written again one document at a time; the README of the
goldens says against which version they were run.
"""

import json
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "goldens" / "plaid"
BITS, DIM, CENTROIDS, CHUNKS = (1, 2, 4), 32, 8, (7, 6)
NCELLS, THRESHOLD, NDOCS = 2, 0.5, 24


def unit(values: np.ndarray) -> torch.Tensor:
    """Rows of length one."""
    return torch.nn.functional.normalize(torch.from_numpy(values.astype(np.float32)), dim=-1)


def documents() -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Centroids, the documents' vectors around them, and queries."""
    random = np.random.default_rng(0)
    centroids = unit(random.normal(size=(CENTROIDS, DIM))).half().float()
    near = lambda count: centroids[random.integers(0, CENTROIDS, size=count)].numpy()  # noqa: E731
    rows = [unit(near(n) + 0.1 * random.normal(size=(n, DIM))) for n in random.integers(1, 9, size=sum(CHUNKS))]
    return centroids, rows, [unit(near(n) + 0.15 * random.normal(size=(n, DIM))) for n in (5, 3, 6)]


def packed(residuals: torch.Tensor, cutoffs: torch.Tensor, nbits: int) -> torch.Tensor:
    """Buckets of the values, the lowest bit first, in bytes that fill from their highest bit."""
    buckets = torch.bucketize(residuals.float(), cutoffs).to(torch.uint8)
    bits = (buckets.unsqueeze(-1) >> torch.arange(nbits, dtype=torch.uint8)) & 1
    return torch.from_numpy(np.packbits(bits.flatten().numpy())).reshape(len(residuals), DIM // 8 * nbits)


def unpacked(residuals: torch.Tensor, weights: torch.Tensor, nbits: int) -> torch.Tensor:
    """The weights of the buckets."""
    bits = np.unpackbits(residuals.numpy(), axis=1).reshape(len(residuals), DIM, nbits)
    return weights[torch.from_numpy((bits * (1 << np.arange(nbits))).sum(-1))]


def write(folder: Path, nbits: int) -> None:
    """One index, and what its vectors and a search give."""
    folder.mkdir(parents=True, exist_ok=True)
    centroids, rows, queries = documents()
    flat = torch.cat(rows).half()
    codes = (centroids @ flat.float().T).max(dim=0).indices
    residuals = flat - centroids[codes]
    quantiles = torch.arange(0, 2**nbits) * (1 / 2**nbits)
    cutoffs = residuals.float().quantile(quantiles[1:])
    weights = residuals.float().quantile(quantiles + 0.5 / 2**nbits)
    bits = packed(residuals, cutoffs, nbits)
    lengths = [len(row) for row in rows]
    torch.save(centroids.half(), folder / "centroids.pt")
    torch.save((cutoffs, weights), folder / "buckets.pt")
    torch.save(residuals.abs().mean(dim=0).mean(), folder / "avg_residual.pt")
    starts, first = np.concatenate([[0], np.cumsum(lengths)]), 0
    for number, count in enumerate(CHUNKS):
        part = slice(int(starts[first]), int(starts[first + count]))
        torch.save(codes[part].to(torch.int32).clone(), folder / f"{number}.codes.pt")
        torch.save(bits[part].clone(), folder / f"{number}.residuals.pt")
        (folder / f"doclens.{number}.json").write_text(json.dumps(lengths[first : first + count]))
        facts = {"passage_offset": first, "num_passages": count, "num_embeddings": part.stop - part.start}
        (folder / f"{number}.metadata.json").write_text(json.dumps(facts | {"embedding_offset": part.start}))
        first += count
    lists = [torch.unique(torch.repeat_interleave(torch.tensor(lengths))[codes == c]).int() for c in range(CENTROIDS)]
    sizes, longest = torch.tensor([len(pids) for pids in lists]), max(len(pids) for pids in lists)
    padding = [torch.zeros(longest, dtype=torch.int32)] if len(lists[-1]) < longest else []
    torch.save((torch.cat(lists + padding), sizes), folder / "ivf.pid.pt")
    facts = {"config": {"dim": DIM, "nbits": nbits}, "num_chunks": len(CHUNKS), "num_partitions": CENTROIDS}
    counts = {"num_embeddings": len(flat), "avg_doclen": len(flat) / len(rows)}
    (folder / "metadata.json").write_text(json.dumps(facts | counts))
    vectors = torch.nn.functional.normalize(centroids[codes] + unpacked(bits, weights, nbits), dim=-1)
    golden = {"vectors": vectors.numpy(), "lengths": np.asarray(lengths), "given": flat.numpy()}
    for number, query in enumerate(queries):
        scores, pids = ranked(query, centroids, codes, vectors, starts)
        golden |= {f"query_{number}": query.numpy(), f"scores_{number}": scores, f"pids_{number}": pids}
    np.savez_compressed(folder / "golden.npz", **golden)


def ranked(
    query: torch.Tensor, centroids: torch.Tensor, codes: torch.Tensor, vectors: torch.Tensor, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and documents of a search with both cuts."""
    table = centroids @ query.T
    cells = table.topk(NCELLS, dim=0).indices.unique()
    own = [codes[starts[pid] : starts[pid + 1]] for pid in range(len(starts) - 1)]
    pids = [pid for pid, of in enumerate(own) if torch.isin(of, cells).any()]
    near = table.max(-1).values >= THRESHOLD

    def by_centroids(pid: int, kept: torch.Tensor) -> float:
        left = own[pid][kept[own[pid]]]
        return float(table[left].max(0).values.sum()) if len(left) else -9999.0 * len(query)

    pids = sorted(pids, key=lambda pid: -by_centroids(pid, near))[:NDOCS]
    pids = sorted(pids, key=lambda pid: -by_centroids(pid, torch.ones_like(near)))[: NDOCS // 4]
    scores = [float((vectors[starts[pid] : starts[pid + 1]] @ query.T).max(0).values.sum()) for pid in pids]
    order = np.argsort(-np.asarray(scores), kind="stable")
    return np.asarray(scores, np.float32)[order], np.asarray(pids)[order]


def main() -> None:
    for nbits in BITS:
        write(FOLDER / f"{nbits}_bits", nbits)
    (FOLDER / "made_with.json").write_text(json.dumps({"torch": torch.__version__.split("+")[0]}) + "\n")


if __name__ == "__main__":
    main()
