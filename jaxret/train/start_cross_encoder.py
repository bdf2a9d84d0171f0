"""What the training of a cross-encoder starts from: fresh parameters, an encoder, or a cross-encoder."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxret.data.pairs import PairConfig
from jaxret.data.pretrained_tokenizer import load_tokenizer
from jaxret.errors import InputError
from jaxret.nn.cross_encoder import CrossEncoderConfig
from jaxret.runtime.cross_encoder import CrossEncoderModel
from jaxret.runtime.hub import local_folder
from jaxret.runtime.layouts import Description, describe
from jaxret.runtime.layouts.cross_encoders import describe_cross_encoder, is_cross_encoder
from jaxret.train.start import check_one_origin


def described(
    config: CrossEncoderConfig | None,
    text: PairConfig | None,
    vocabulary: str,
    pretrained: str,
    precision: str,
    attention: str,
) -> Description:
    """The cross-encoder of a run, with the files of its parameters where it starts from a checkpoint.

    Args:
      config: sizes and head; with `pretrained` the encoder is the checkpoint's. None takes a cross-encoder's head too.
      text: how a pair becomes ids; None takes a cross-encoder's.
      vocabulary: the tokeniser of a model that starts fresh.
      pretrained: a cross-encoder, or any retriever whose encoder goes on with a fresh head; "" starts fresh.
      precision, attention: see `CrossEncoderModel`.

    Raises:
      InputError: both or neither of vocabulary and checkpoint, or settings that do not fit them.
    """
    check_one_origin(vocabulary, pretrained)
    given: dict[str, Any] = {"precision": precision, "attention": attention}
    if pretrained and is_cross_encoder(local_folder(pretrained)):
        found = describe_cross_encoder(pretrained)
        model = dataclasses.replace(found.model, text=text or found.model.text, **given)
        if config is not None:
            whole = dataclasses.replace(config, encoder=model.config.encoder)
            model = dataclasses.replace(model, config=whole)
        return dataclasses.replace(found, model=model)
    if config is None or text is None:
        problem, fix = "not bound", "Bind both: CrossEncoderConfig and PairConfig, or start from a cross-encoder."
        raise InputError("train.retriever, train.text", problem, fix)
    if pretrained:
        found = describe(pretrained)
        whole = dataclasses.replace(config, encoder=found.model.config.encoder)
        origin = {name: found.model.origin[name] for name in ("family", "config") if name in found.model.origin}
        model = CrossEncoderModel(whole, text, found.model.tokenizer, **given, origin=origin)
        return dataclasses.replace(found, model=model)
    tokenizer = load_tokenizer(vocabulary)
    encoder = dataclasses.replace(config.encoder, vocab_size=tokenizer.size)
    return Description(CrossEncoderModel(dataclasses.replace(config, encoder=encoder), text, tokenizer, **given))
