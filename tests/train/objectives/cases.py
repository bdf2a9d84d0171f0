"""Every objective, with a model that drops and batches for it: steps that nothing of how they are run may change."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxret.ops.distillation import margin_mse
from jaxret.runtime.layouts import describe
from jaxret.train.objectives.context_prediction import predicting_context
from jaxret.train.objectives.contrastive import contrast, improved_contrast
from jaxret.train.objectives.cross_encoder import by_labels, by_teacher, cross_encoder
from jaxret.train.objectives.distillation import distill, distill_ranked, self_distill
from jaxret.train.objectives.masked_lm import masked_language_modeling
from jaxret.train.objectives.memory import remembering
from jaxret.train.objectives.reconstruction import reconstructing
from jaxret.train.objectives.regularized import at_sizes, labelled_pairs, sparsity
from jaxret.train.objectives.represented import objective_over
from jaxret.train.objectives.retromae import retromae_distillation
from jaxret.train.objectives.tiled import tiled_contrast
from jaxret.train.objectives.translated import translated
from tests.parity.cases import Case as Checkpoint
from tests.train.objectives import pairs
from tests.train.objectives import pretraining as tiny

B, N, TEXTS, DROPOUT = 40, 4, 40, 0.3  # 5 rows a device of 8x1x1, 10 of 2x2x2 and 1x4x2
# A key's bias adds the same to all scores of a query, where no rotation by position comes between; softmax drops it.
KEY_BIAS = "attention/key/bias$"
CHUNK_ROWS = 3  # of which the last chunk has fewer
EVEN = dict.fromkeys(("dense", "lexical", "multi_vector"), 1.0)
KNOBS = {"temperature": dict.fromkeys(EVEN, 0.5), "weight": EVEN}


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
      model: with dropout.
      objective: an Objective, or a loss alone.
      batches: of the first steps; a second one where the objective reads what the first step leaves.
      tolerance: of gradients and states, relative to the largest number in each array.
      without_effect: a pattern of parameters that the loss does not depend on, so that their gradients are rounding.
    """

    model: Any
    objective: Any
    batches: Sequence[Mapping[str, np.ndarray]]
    tolerance: float = 1e-5
    without_effect: str = ""


def dropping(model):
    """The model with dropout in its encoder."""
    encoder = dataclasses.replace(model.config.encoder, dropout=DROPOUT)
    return dataclasses.replace(model, config=dataclasses.replace(model.config, encoder=encoder))


def every_comparison():
    """All comparisons at once: a wrong gradient of one is a wrong gradient of the sum."""
    dense = functools.partial(contrast, temperature={"dense": 0.5}, weight={"dense": 1.0})
    found = [
        functools.partial(contrast, **KNOBS),
        functools.partial(improved_contrast, alpha=0.7, beta=0.5, gamma=0.3, **KNOBS),
        functools.partial(distill, weight=EVEN),
        functools.partial(distill_ranked, **KNOBS),
        functools.partial(self_distill, temperature=0.5, ensemble=EVEN, weight=EVEN),
        functools.partial(sparsity, query_flops=0.1, passage_flops=0.2, query_norm=0.3, passage_norm=0.4),
        functools.partial(at_sizes, comparison=dense, sizes=(4, 2)),
        functools.partial(labelled_pairs, temperature=0.5, miner_epsilon=None),
    ]
    return objective_over(found, weight=[1.0 + number for number in range(len(found))])


def groups(model, seed=0):
    """Queries with their passages, two of which are copies of others' positives."""
    random = np.random.default_rng(seed)
    query = random.integers(7, model.tokenizer.size, (B, 6)).astype(np.int32)
    passage = random.integers(7, model.tokenizer.size, (B, N, 9)).astype(np.int32)
    query[:5, 4:], passage[3:9, 1, 5:] = -1, -1
    passage[7, 0], passage[11, 2] = passage[2, 0], passage[5, 0]
    keys = np.arange(B * N, dtype=np.int32).reshape(B, N)
    keys[7, 0], keys[11, 2] = keys[2, 0], keys[5, 0]
    found = {"query": query, "passage": passage, "passage_key": keys, "positive_keys": keys[:, :1]}
    scores = random.normal(size=(B, N)).astype(np.float32)
    return found | {"language": np.arange(B, dtype=np.int32) % 2, "teacher_scores": scores}


def comparisons(model, speaker):
    return Case(dropping(model), every_comparison(), [groups(model)])


def contrasted(model, speaker):
    return Case(dropping(model), objective_over([functools.partial(contrast, **KNOBS)]), [groups(model)])


def tiled(model, speaker):
    tiles = functools.partial(tiled_contrast, columns=5, **KNOBS)
    return Case(dropping(model), objective_over([tiles]), [groups(model)])


def memory(model, speaker):
    objective = remembering(size=48, temperature=0.5, languages=2, momentum=0.9)
    return Case(dropping(model), objective, [groups(model), groups(model, 1)])


def retromae(model, speaker):
    bert = tiny.bert(model, dropout=DROPOUT)
    objective = retromae_distillation(teacher=speaker, most=3)
    return Case(bert, objective, [tiny.masked_batch(model, TEXTS)], without_effect=KEY_BIAS)


def context(model, speaker):
    # Batch normalisation takes small differences of rows: their order alone, on one device, moves a gradient by 5e-5.
    objective = predicting_context(temperature=0.3, languages=2, size=48, momentum=0.9)
    numbers = np.arange(TEXTS, dtype=np.int32)
    batches = [
        {
            "center": tiny.texts(model, TEXTS, 7, 1 + step),
            "context": tiny.texts(model, TEXTS, 7, 3 + step),
            "language": numbers % 2,
            "document": numbers // 2 + 2 * step,
        }
        for step in range(2)
    ]
    bert = tiny.bert(model, dropout=DROPOUT)
    return Case(bert, objective, batches, tolerance=1e-4, without_effect=KEY_BIAS)


def reconstruction(model, speaker):
    batch = {"source": tiny.texts(model, TEXTS, 5), "target": tiny.texts(model, TEXTS, 6, 3)}
    objective = reconstructing(decoder=speaker, added=1, mask_id=4)
    return Case(tiny.bert(model, dropout=DROPOUT), objective, [batch], without_effect=KEY_BIAS)


def packed(model, speaker):
    batch = tiny.masked_batch(model, TEXTS)
    segments = np.where(batch["tokens"] < 0, -1, np.arange(9) // 4).astype(np.int32)
    bert, batch = tiny.bert(model, dropout=DROPOUT), batch | {"segments": segments}
    return Case(bert, masked_language_modeling(), [batch], without_effect=KEY_BIAS)


def translation(model, speaker):
    teacher = str(Checkpoint("st6_minilm").folder)
    student = dropping(describe(teacher).model)
    batch = {name: groups(student)[name] for name in ("query", "passage")}
    return Case(student, translated(teacher=teacher), [batch], without_effect=KEY_BIAS)


def pair_scores(model, speaker):
    scorer = pairs.scorer(model.tokenizer, dropout=DROPOUT)
    parts = [by_labels, functools.partial(by_teacher, loss=margin_mse)]
    objective, batch = functools.partial(cross_encoder, parts=parts), pairs.batch(scorer, ways=N, rows=B)
    # Both parts see differences of a query's scores alone.
    return Case(scorer, objective, [batch], without_effect="score/classifier/bias$")


CASES = {
    case.__name__: case
    for case in (
        comparisons,
        tiled,
        memory,
        retromae,
        context,
        reconstruction,
        packed,
        translation,
        pair_scores,
    )
}
PLAIN = {"tiled": contrasted}  # whose numbers they must find, where not their own
