"""Heads of transformers' sequence classifiers with one label, by family: their tensors and their config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxret.errors import InputError
from jaxret.nn.convert.configs import ACTIVATION_NAMES
from jaxret.nn.convert.families import FAMILIES
from jaxret.nn.convert.table import Rule, Table
from jaxret.nn.cross_encoder import ScoreHeadConfig

Record = Mapping[str, Any]
CLASS = "ForSequenceClassification"


@dataclass(frozen=True)
class ScoreHeadRow:
    """One family's head.

    Attributes:
      rules: its tensors.
      architecture: the class.
      read: the head of a config.json.
      written: what config.json says of a head.
    """

    rules: tuple[Rule, ...]
    architecture: str
    read: Callable[[Record], ScoreHeadConfig]
    written: Callable[[ScoreHeadConfig], dict[str, Any]]


def _rules(dense: str, classifier: str, *more: Rule) -> tuple[Rule, ...]:
    names = ((dense, "score/transform"), (classifier, "score/classifier"))
    kernels = [Rule(f"{theirs}.weight", f"{ours}/kernel", transposed=True) for theirs, ours in names]
    return (*kernels, *(Rule(f"{theirs}.bias", f"{ours}/bias") for theirs, ours in names), *more)


def _tanh_read(record: Record) -> ScoreHeadConfig:
    dropout = record.get("classifier_dropout")
    return ScoreHeadConfig(dropout=record.get("hidden_dropout_prob", 0.1) if dropout is None else dropout)


def _tanh_written(head: ScoreHeadConfig) -> dict[str, Any]:
    return {"classifier_dropout": head.dropout}


def _modernbert_read(record: Record) -> ScoreHeadConfig:
    activation = record.get("classifier_activation", "gelu")
    if activation not in ACTIVATION_NAMES:
        fix = f"Known are {', '.join(ACTIVATION_NAMES)}."
        raise InputError("config.json: classifier_activation", f"unknown {activation!r}", fix)
    return ScoreHeadConfig(
        pooling=record.get("classifier_pooling", "cls"),
        bias=record.get("classifier_bias", False),
        activation=ACTIVATION_NAMES[activation],
        norm=True,
        dropout=record.get("classifier_dropout", 0.0),
    )


def _modernbert_written(head: ScoreHeadConfig) -> dict[str, Any]:
    theirs = next((theirs for theirs, ours in ACTIVATION_NAMES.items() if ours == head.activation), head.activation)
    return {
        "classifier_pooling": head.pooling,
        "classifier_bias": head.bias,
        "classifier_activation": theirs,
        "classifier_dropout": head.dropout,
    }


def _roberta(name: str) -> ScoreHeadRow:
    return ScoreHeadRow(_rules("classifier.dense", "classifier.out_proj"), f"{name}{CLASS}", _tanh_read, _tanh_written)


_NORM = (Rule("head.norm.weight", "score/norm/scale"), Rule("head.norm.bias", "score/norm/bias"))
SCORE_HEADS = {
    "bert": ScoreHeadRow(_rules("bert.pooler.dense", "classifier"), f"Bert{CLASS}", _tanh_read, _tanh_written),
    "roberta": _roberta("Roberta"),
    "camembert": _roberta("Camembert"),
    "xlm-roberta": _roberta("XLMRoberta"),
    "xlm-roberta-xl": _roberta("XLMRobertaXL"),
    "modernbert": ScoreHeadRow(
        _rules("head.dense", "classifier", *_NORM), f"ModernBert{CLASS}", _modernbert_read, _modernbert_written
    ),
}


def score_head_row(family: str, place: Any) -> ScoreHeadRow:
    """The row of a family; InputError lists those known."""
    if family not in SCORE_HEADS:
        problem = f"no cross-encoder of the family {family!r} is known"
        raise InputError(place, problem, f"Known are {', '.join(SCORE_HEADS)}.")
    return SCORE_HEADS[family]


def score_table(family: str) -> Table:
    """All tensors of a cross-encoder, every one of them wanted: another head's are unknown."""
    known = FAMILIES[family]
    body = replace(known, heads=()).table(prefix=known.prefix)
    return replace(body, rules=(*body.rules, *SCORE_HEADS[family].rules))


def check_one_label(record: Record, place: Any) -> None:
    """InputError where a config.json is of a classifier with several labels."""
    labels = record.get("id2label")
    count = record.get("num_labels", 2 if labels is None else len(labels))
    if count != 1:
        problem = f"{count} labels; a reranker gives one number"
        raise InputError(f"{place}: id2label", problem, "Give a model with one label (num_labels=1).")


def score_record(head: ScoreHeadConfig, family: str) -> dict[str, Any]:
    """What config.json says of the head; InputError where the family cannot express it."""
    row = score_head_row(family, "CrossEncoderConfig")
    record = row.written(head) | {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    if row.read(record) != head:
        problem = f"a {family} cross-encoder's head is {row.read(record)}, not {head}"
        raise InputError("CrossEncoderConfig.head", problem, 'Save in the layout "jaxret".')
    return record
