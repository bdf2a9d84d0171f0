"""A small BEIR folder, a results folder of three systems with known ranks, and a model that was never trained."""

import json
import math
from pathlib import Path

import numpy as np

from jaxret.data.beir import read_corpus
from jaxret.data.text import TextConfig
from jaxret.data.tokenizer import Tokenizer, trained_vocabulary
from jaxret.nn.config import EncoderConfig
from jaxret.nn.retriever import RetrieverConfig
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.model import Model

DEMO = Path(__file__).parents[2] / "data/jsquad"
HOSTILE = '<script>alert("x")</script><img src=http://evil.example/a.png>'
# The rank of each query's document; None: not in the run.
RANKS = {
    "bm25": [1, 2, None, 1, 3, 12, 1, 1],
    "untrained_multi_vector": [5, None, None, 2, 11, 12, 1, None],
    "multi_vector": [1, 1, 1, None, 3, 11, 1, 4],
}
NUM_DOCUMENTS = 16


def write_data(folder: Path) -> Path:
    """Sixteen passages of JSQuAD, and eight queries; query qI belongs to document dI. The third one is hostile."""
    passages = read_corpus(DEMO).texts[: 5 * NUM_DOCUMENTS : 5]
    titles = [f"題名{i}" if i != 2 else HOSTILE for i in range(NUM_DOCUMENTS)]
    corpus = [{"_id": f"d{i}", "title": titles[i], "text": text} for i, text in enumerate(passages)]
    queries = [{"_id": f"q{i}", "text": passages[i][:10] + (HOSTILE if i == 2 else "は？")} for i in range(8)]
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(8))
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8")
    return folder


def values(rank: int | None) -> dict[str, float]:
    """The measures of a query whose one relevant document has this rank."""
    found = rank is not None and rank <= 10
    return {
        "ndcg_at_10": 1 / math.log2(rank + 1) if found else 0.0,
        "mrr_at_10": 1 / rank if found else 0.0,
        "recall_at_1": float(rank == 1),
        "recall_at_10": float(found),
    }


def write_results(folder: Path, systems: tuple[str, ...] = tuple(RANKS)) -> Path:
    """metrics.json, metrics/ and runs/ of the systems, all consistent with RANKS."""
    entries = []
    for name in systems:
        rows = {f"q{i}": values(rank) for i, rank in enumerate(RANKS[name])}
        scores = {key: float(np.mean([row[key] for row in rows.values()])) for key in values(1)}
        entries.append(
            {
                "system": name,
                "task_name": "toy",
                "split": "test",
                "scores": scores,
                "intervals": {key: [score * 0.9, score + (1 - score) * 0.1] for key, score in scores.items()},
                "num_queries": len(rows),
                "rules": {"ties": "by document id"},
            }
        )
        table = [["query-id", *scores]] + [
            [query, *(f"{row[key]:.6f}" for key in scores)] for query, row in rows.items()
        ]
        _write(folder / "metrics" / f"{name}.tsv", "".join("\t".join(line) + "\n" for line in table))
        _write(
            folder / "manifests" / f"{name}.json", json.dumps({"system": name, "data": {"fingerprint": f"f-{name}"}})
        )
        _write(folder / "runs" / f"{name}.trec", "".join(_run_lines(name)))
    _write(folder / "metrics.json", json.dumps(entries))
    return folder


def write_model(folder: Path, heads: tuple[str, ...] = ("dense", "multi_vector")) -> Path:
    """A workdir with a tiny model's step 0, a training.jsonl and a manifest."""
    tokenizer = Tokenizer(trained_vocabulary(read_corpus(DEMO).texts[:100], 2500, model_type="bpe"))
    encoder = EncoderConfig(vocab_size=tokenizer.size, width=16, num_layers=1, num_heads=2, mlp_width=16)
    config = RetrieverConfig(
        encoder, heads, dense_layers=(8,), token_layers=(8,), skip_ids=tuple(sorted(tokenizer.skiplist()))
    )
    model = Model(config, TextConfig(query_max_len=24, passage_max_len=48), tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_description(folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(0, model.init(0), {"step": np.zeros((), np.int32)}, {})
    checkpoints.close()
    logged = [
        {
            "step": step,
            "loss": 9.0 / step,
            "loss_dense": 4.5 / step,
            "accuracy_dense": 0.125,
            "examples_per_second": 321.0,
        }
        for step in range(10, 40, 10)
    ]
    _write(folder / "training.jsonl", "".join(json.dumps(row) + "\n" for row in logged))
    _write(folder / "manifest.json", json.dumps({"commit": "0123abc", "seed": 17, "versions": {"jax": "9.9"}}))
    return folder


def _run_lines(name: str) -> list[str]:
    lines = []
    for i, rank in enumerate(RANKS[name]):
        others = [f"d{j}" for j in range(NUM_DOCUMENTS) if j != i][:12]
        if rank is not None:
            others.insert(rank - 1, f"d{i}")
        lines += [f"q{i} Q0 {document} {r} {20 - r} {name}\n" for r, document in enumerate(others, 1)]
    return lines


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
