"""Writes the bare encoders and MaskedLMs and every layer's states: python -m tests.parity.make_encoders [case ...]."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from tests.parity.corpus import TEXTS
from tests.parity.encoder_configs import ENCODERS, Encoder
from tests.parity.seeded import Arrays, emptied, numpy, readable, recorded, seeded, tensor_ids, written


def encoder_checkpoint(name: str, case: Encoder) -> None:
    """Writes one case."""
    folder = emptied(name)
    tokenizer, config = plain_encoder(folder, case, case.seed or name)
    model = (AutoModelForMaskedLM if case.masked_lm else AutoModel).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    texts = TEXTS[:2] if case.masked_lm else TEXTS  # logits are wide
    rows = tokenizer(texts, truncation=True, max_length=case.limit)["input_ids"]
    assert case.masked_lm or max(map(len, rows)) == case.limit, (name, [len(row) for row in rows])
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    about = {"layout": "masked_lm" if case.masked_lm else "transformers", "family": config.model_type}
    about |= {"dtype": case.dtype, "bidirectional": case.bidirectional, "limit": case.limit, "texts": texts}
    written(name, _goldens(model.eval(), case, rows, pad_id), about)


def plain_encoder(folder: Path, case: Encoder, seed: str) -> tuple[PreTrainedTokenizerBase, PretrainedConfig]:
    """Writes a tokeniser, random weights and config.json; returns the tokeniser and the config."""
    case.tokenizer(folder, case.limit)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert all(tokenizer(text)["input_ids"] == plain.encode(text).ids for text in TEXTS), case
    config = case.config(**case.sizes, vocab_size=len(tokenizer), **special_ids(tokenizer))
    _stored(folder, case, seeded(_stored_kind(case).from_config(config), seed))
    return tokenizer, config


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """What a config says of its tokeniser."""
    names = ("pad", "bos", "eos", "cls", "sep")
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}


def _stored_kind(case: Encoder) -> Any:
    if case.published:
        return AutoModelForPreTraining
    return AutoModelForMaskedLM if case.masked_lm else AutoModelForCausalLM if case.causal_lm else AutoModel


def _stored(folder: Path, case: Encoder, model: Any) -> None:
    """Saves the weights and config.json as the case wants them spelled."""
    if case.masked_lm and hasattr(model, "cls"):
        # Untied, transformers 5 adds the one and forgets the other; older releases made them one tensor.
        model.cls.predictions.decoder.bias.data.copy_(model.cls.predictions.bias.data)
    shards = {} if case.max_shard_size is None else {"max_shard_size": case.max_shard_size}
    model.to(getattr(torch, case.dtype)).save_pretrained(folder, **shards)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.published:
        (folder / "model.safetensors").unlink()
        names = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in model.state_dict()}
        names = {name: new.replace("LayerNorm.bias", "LayerNorm.beta") for name, new in names.items()}
        tensors = {names[name]: tensor for name, tensor in model.state_dict().items()}
        tensors["bert.embeddings.position_ids"] = torch.arange(model.config.max_position_embeddings)[None]
        torch.save(tensors, folder / "pytorch_model.bin")
    path, older = folder / "config.json", case.older_config
    config = json.loads(path.read_text()) | dict(older)
    config = {name: value for name, value in config.items() if name not in older or value is not None}
    path.write_text(json.dumps(config, indent=2) + "\n")
    AutoConfig.from_pretrained(folder)
    readable(folder)


def _goldens(model: torch.nn.Module, case: Encoder, rows: list[list[int]], pad_id: int) -> Arrays:
    arrays: Arrays = {}
    for prefix, side in (("", "right"), ("left_", "left")):
        inputs = tensor_ids(rows, pad_id, side)
        arrays |= recorded(model, _open(inputs) if case.bidirectional else inputs, prefix)
        arrays[prefix + "attention_mask"] = numpy(inputs["attention_mask"].to(torch.int32))
    if model.config.model_type == "bert" and case.layers:
        arrays |= _second_type(model, tensor_ids(rows, pad_id))
    unwanted = {"left_layers", "left_embeddings", "left_logits"} | (set() if case.layers else {"layers", "embeddings"})
    return {name: array for name, array in arrays.items() if name not in unwanted}


def _open(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with a 4D additive mask that hides padding and nothing else."""
    hidden = (1.0 - inputs["attention_mask"].float())[:, None, None, :] * torch.finfo(torch.float32).min
    length = inputs["input_ids"].shape[1]
    return {**inputs, "attention_mask": hidden.expand(-1, 1, length, length)}


@torch.no_grad()
def _second_type(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> Arrays:
    """What the second half of each row as another segment makes of the states."""
    types = torch.zeros_like(inputs["input_ids"])
    types[:, types.shape[1] // 2 :] = 1
    output = getattr(model, model.base_model_prefix, model)(**inputs, token_type_ids=types)
    return {"token_types": numpy(types.to(torch.int32)), "typed_states": numpy(output.last_hidden_state)}


def main(chosen: list[str]) -> None:
    """Writes the chosen cases, or all."""
    for name in chosen or ENCODERS:
        encoder_checkpoint(name, ENCODERS[name])


if __name__ == "__main__":
    main(sys.argv[1:])
