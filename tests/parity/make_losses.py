"""Writes what the original libraries make of shared inputs, losses and gradients: python -m tests.parity.make_losses.

Runs in PyLate's environment with the packages of requirements-losses.txt beside it. The contrastive loss of XLM-K, a
sibling of CCP's that is no package, is written again from pretraining/xlmk/contrastive_utils.py of microsoft/Unicoder.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from colbert.modeling.colbert import ColBERT, colbert_score
from pylate import losses as pylate
from pytorch_metric_learning import distances, losses, miners
from sentence_transformers import CrossEncoder
from sentence_transformers import losses as st
from sentence_transformers.cross_encoder import losses as ranking
from sentence_transformers.sparse_encoder.losses import FlopsLoss
from torch import Tensor
from torch.nn import functional as F

GOLDEN = Path(__file__).parents[1] / "goldens" / "losses.npz"
B, WAYS, K, V, S, T = 4, 3, 6, 11, 3, 5
PACKAGES = ("torch", "sentence-transformers", "pylate", "pytorch-metric-learning", "colbert-ai", "FlagEmbedding")
Inputs = SimpleNamespace


def inputs() -> dict[str, np.ndarray]:
    """Random numbers; documents are in the order of their queries, the positive first."""
    random = np.random.default_rng(0)
    shapes = {"q": (B, K), "d": (B * WAYS, K), "q_tokens": (B, S, K), "d_tokens": (B * WAYS, T, K), "scores": (B, V)}
    shapes |= {"teacher": (B, WAYS), "vectors": (9, K), "bank": (3, K), "logits": (B, T, V), "target": (B, T, V)}
    arrays = {name: random.normal(size=shape) for name, shape in shapes.items()}
    arrays |= {"q_lexical": random.random((B, V)), "d_lexical": random.random((B * WAYS, V))}
    ids = {"labels": np.array([0, 1, 2, 0, 1, 2, 3, 4, 0]), "relevance": random.integers(0, 4, (B, V))}
    ids |= {"token_ids": random.integers(0, V, (B, T)), "language": np.array([0, 1, 0, 1])}
    ids |= {"bank_language": np.array([1, 0, 1]), "d_mask": (random.random((B * WAYS, T)) < 0.7) | (np.arange(T) == 0)}
    return {n: x.astype(np.float32) for n, x in arrays.items()} | {n: x.astype(np.int32) for n, x in ids.items()}


def flag_embedding() -> tuple[ModuleType, ModuleType]:
    """The two modules that hold FlagEmbedding's losses, without the rest of the package and what it imports."""
    found = importlib.util.find_spec("FlagEmbedding")
    assert found is not None and found.submodule_search_locations is not None
    modules = []
    for name, path in (
        ("FlagEmbedding.abc.finetune.embedder", "abc/finetune/embedder/AbsModeling.py"),
        ("FlagEmbedding.m3", "finetune/embedder/encoder_only/m3/modeling.py"),
    ):
        spec = importlib.util.spec_from_file_location(name, Path(found.submodule_search_locations[0]) / path)
        assert spec is not None and spec.loader is not None
        modules.append(importlib.util.module_from_spec(spec))
        sys.modules[name] = modules[-1]
        spec.loader.exec_module(modules[-1])
    return modules[0], modules[1]


FLAG, M3 = flag_embedding()


def columns(x: Inputs) -> list[Tensor]:
    """Queries, positives and negatives, as sentence-transformers takes them."""
    return [x.q, *(x.d[way::WAYS] for way in range(WAYS))]


def ranked(**directions) -> Callable[[Inputs], Tensor]:
    """MultipleNegativesRankingLoss in some of its forms."""
    return lambda x: st.MultipleNegativesRankingLoss(None, **directions).compute_loss_from_embeddings(columns(x), None)


class Given(torch.nn.Module):
    """A model whose output is its input."""

    skiplist: tuple[int, ...] = ()
    do_query_expansion = False

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features as they are; sentence-transformers changes them in place."""
        return dict(features)


def matryoshka(x: Inputs) -> Tensor:
    """Over two sizes of three."""
    model = Given()
    model.get_sentence_embedding_dimension = model.get_embedding_dimension = lambda: K
    loss = st.MatryoshkaLoss(model, st.MultipleNegativesRankingLoss(model), [K, 2], [1.0, 0.5])
    return loss([{"sentence_embedding": column} for column in columns(x)], None)


def each_list(kind: type, **settings) -> Callable[[Inputs], Tensor]:
    """A loss of sentence-transformers over lists of candidates, one list at a time."""

    def loss(x: Inputs) -> Tensor:
        rows = []
        for scores, relevance in zip(x.scores, x.relevance, strict=True):
            rows.append(kind(_Lister(scores), mini_batch_size=V, **settings)([["q"], [["d"] * V]], [relevance]))
        return torch.stack(rows)

    return loss


def each_pair(kind: type, **settings) -> Callable[[Inputs], Tensor]:
    """A loss of sentence-transformers over pairs and a label between 0 and 1, a query's candidates at a time."""

    def loss(x: Inputs) -> Tensor:
        rows = []
        for scores, labels in zip(x.scores, x.q_lexical, strict=True):
            rows.append(
                kind(_CrossEncoder(scores[:, None]), **settings)([["q"] * V, ["d"] * V], labels.float().detach())
            )
        return torch.stack(rows)

    return loss


class _Lister:
    """A cross-encoder that has given the scores already."""

    num_labels, device = 1, "cpu"

    def __init__(self, scores: Tensor):
        self.scores = scores.float()

    def tokenizer(self, pairs: list, **_) -> _Tokens:
        assert len(pairs) == len(self.scores)
        return _Tokens()

    def __call__(self) -> tuple[Tensor]:
        return (self.scores,)


class _CrossEncoder(_Lister, CrossEncoder):
    """The same for losses that insist on the class."""


class _Tokens(dict):
    def to(self, device: str) -> _Tokens:
        return self


def metric(distance: distances.BaseDistance, mined: bool) -> Callable[[Inputs], Tensor]:
    """LUSIFER's loss (lusifer/trainer/loss.py): a temperature of 0.05, a margin of 0.25 for the miner."""

    def loss(x: Inputs) -> Tensor:
        hard = miners.MultiSimilarityMiner(epsilon=0.25)(x.vectors, x.labels) if mined else None
        return losses.NTXentLoss(temperature=0.05, distance=distance)(x.vectors, x.labels, hard)

    return loss


def colbert(x: Inputs) -> Tensor:
    """`train` of colbert/training/training.py without a teacher, with in-batch negatives."""
    config = SimpleNamespace(nway=WAYS, interaction="colbert", total_visible_gpus=0)
    q, d = (F.normalize(tokens, dim=-1) for tokens in (x.q_tokens, x.d_tokens))
    mask = x.d_mask.bool()[:, :, None]
    among_all = ColBERT.compute_ib_loss(SimpleNamespace(colbert_config=config), q, d, mask)
    own = colbert_score(q.repeat_interleave(WAYS, dim=0), d, mask, config=config).view(-1, WAYS)
    return F.cross_entropy(own, torch.zeros(B, dtype=torch.long)) + among_all


def late_interaction(kind: type, grouped: bool, **settings) -> Callable[[Inputs], Tensor]:
    """A loss of PyLate's over token vectors."""

    def loss(x: Inputs) -> Tensor:
        documents = [x.d_tokens] if grouped else [x.d_tokens[way::WAYS] for way in range(WAYS)]
        features = [
            {"token_embeddings": y}
            | {name: torch.ones(y.shape[:2], dtype=torch.long) for name in ("input_ids", "attention_mask")}
            for y in (x.q_tokens, *documents)
        ]
        return kind(Given(), **settings)(features, x.teacher)

    return loss


class _M3(M3.EncoderOnlyEmbedderM3Model):
    """BGE-M3 whose representations are given, in its unified training with self-distillation."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.temperature, self.step, self.self_distill_start_step = 0.02, 1, 0
        self.unified_finetuning, self.use_self_distill, self.negatives_cross_device = True, True, False
        self.cross_entropy = torch.nn.CrossEntropyLoss()

    def encode(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return features

    def _get_queries_attention_mask(self, queries: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return torch.ones(B, 1 + S)  # [CLS], which has no token vector, among them


def bge_m3(x: Inputs) -> Tensor:
    """Its loss over three heads."""
    return _M3()((x.q, x.q_lexical, x.q_tokens), (x.d, x.d_lexical, x.d_tokens)).loss


def ranked_distillation(x: Inputs) -> Tensor:
    """FlagEmbedding's `m3_kd_loss`."""
    return FLAG.AbsEmbedderModel.distill_loss("m3_kd_loss", x.teacher.softmax(-1), x.q @ x.d.T, WAYS)


def context_prediction(x: Inputs) -> Tensor:
    """XLM-K's `get_loss` in both directions with one bank of all languages, at a temperature of 0.1."""
    query, key, queue = (F.normalize(y, dim=-1, eps=1e-4) for y in (x.q, x.d[::WAYS], x.bank))
    language = torch.cat([x.language, x.language, x.bank_language])
    mask = torch.eye(B, 2 * B + len(queue)).bool() | (x.language[:, None] != language[None, :])
    labels = torch.arange(B) + B
    total = torch.zeros(())
    for one, other in ((query, key), (key, query)):
        logits = (one @ torch.cat([one, other, queue]).T / 0.1).masked_fill(mask, -torch.inf)
        total = total + F.nll_loss(logits.log_softmax(-1), labels, reduction="sum")
    return total


EVERY_WAY = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
CASES: dict[str, Callable[[Inputs], Tensor]] = {
    "info_nce": ranked(),
    "symmetric_info_nce": ranked(directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"),
    "improved_contrastive": ranked(directions=EVERY_WAY),
    "improved_contrastive_queries": ranked(directions=("query_to_doc", "query_to_query")),
    "sigmoid_pairs": lambda x: F.binary_cross_entropy_with_logits(
        x.q @ x.d.T / 0.5 - 1, torch.eye(B).repeat_interleave(WAYS, 1).double(), reduction="none"
    ).sum(1),
    "pair_and_in_batch": colbert,
    "pylate_contrastive": late_interaction(pylate.Contrastive, grouped=False, temperature=0.3),
    "context_prediction": context_prediction,
    "nt_xent_cosine": metric(distances.CosineSimilarity(), mined=False),
    "nt_xent_cosine_mined": metric(distances.CosineSimilarity(), mined=True),
    "nt_xent_euclidean": metric(distances.LpDistance(), mined=False),
    "nt_xent_euclidean_mined": metric(distances.LpDistance(), mined=True),
    "kl_divergence": lambda x: st.DistillKLDivLoss(None, temperature=2.0).compute_loss_from_embeddings(
        columns(x), x.teacher
    ),
    "pylate_distillation": late_interaction(pylate.Distillation, grouped=True),
    "soft_cross_entropy": lambda x: FLAG.AbsEmbedderModel.distill_loss("kl_div", x.target[:, 0].softmax(-1), x.scores),
    "ranked_distillation": ranked_distillation,
    "bge_m3": bge_m3,
    "margin_mse": lambda x: st.MarginMSELoss(None).compute_loss_from_embeddings(columns(x), x.teacher),
    "embedding_mse": lambda x: st.MSELoss(Given())([{"sentence_embedding": x.q}], x.d[::WAYS]),
    "ranknet": each_list(ranking.RankNetLoss, reduction_log="natural"),
    "list_mle": each_list(ranking.ListMLELoss, respect_input_order=False),
    "lambda_rank": each_list(ranking.LambdaLoss, weighting_scheme=ranking.LambdaRankScheme()),
    "ndcg_loss_2": each_list(ranking.LambdaLoss, weighting_scheme=ranking.NDCGLoss2Scheme()),
    "ndcg_loss_2pp": each_list(ranking.LambdaLoss),
    "binary_cross_entropy": each_pair(ranking.BinaryCrossEntropyLoss),
    "score_mse": each_pair(ranking.MSELoss),
    "softmax_cross_entropy": each_list(ranking.ListNetLoss),
    "flops": lambda x: FlopsLoss(None).compute_loss_from_embeddings(x.d_lexical),
    "matryoshka": matryoshka,
    "masked_lm": lambda x: F.cross_entropy(x.logits.flatten(0, 1), x.token_ids.long().flatten(), reduction="none"),
    "masked_lm_distillation": lambda x: F.cross_entropy(
        x.logits.flatten(0, 1) / 2, (x.target / 2).softmax(-1).flatten(0, 1), reduction="none"
    ),
}


def main() -> None:
    """Writes the inputs, and each case's value and the gradients of its sum, in float64 where the library can."""
    given = inputs()
    arrays = {f"inputs/{name}": x for name, x in given.items()}
    for case, loss in CASES.items():
        x = Inputs(**{n: torch.from_numpy(y) if y.dtype == np.int32 else _leaf(y) for n, y in given.items()})
        value = loss(x)
        value.sum().backward()
        arrays[f"{case}/value"] = np.float32(value.detach().numpy())
        for name, tensor in vars(x).items():
            if tensor.grad is not None and tensor.grad.any():
                arrays[f"{case}/{name}"] = np.float32(tensor.grad.numpy())
        print(case, {n.split("/")[1]: a.shape for n, a in arrays.items() if n.startswith(f"{case}/")})
    arrays["versions"] = np.array(json.dumps({name: version(name) for name in PACKAGES}))
    np.savez_compressed(GOLDEN, **arrays)


def _leaf(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).double().requires_grad_()


if __name__ == "__main__":
    main()
