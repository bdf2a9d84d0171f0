"""Random weights that do not depend on torch's generator, and the recording of what a torch encoder computes."""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers.utils.logging

from tests.parity.cases import CHECKPOINTS

Arrays = dict[str, np.ndarray]

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def seeded(model: torch.nn.Module, seed: str) -> torch.nn.Module:
    """The model in eval mode, every parameter filled from numpy: norms around 1, biases far from 0."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for name, parameter in model.named_parameters():
        random = np.random.default_rng(zlib.crc32(f"{seed}/{name}".encode()))
        values = random.normal(size=tuple(parameter.shape))
        if id(parameter) in embeddings:
            values *= 0.7
        elif parameter.ndim > 1:
            values /= np.sqrt(parameter.shape[1])
        else:
            values = values * 0.3 + name.endswith("weight")
        parameter.data.copy_(torch.from_numpy(values))
    return model.eval()


def tensor_ids(rows: list[list[int]], pad_id: int, side: str = "right") -> dict[str, torch.Tensor]:
    """Rows of ids as `input_ids` and `attention_mask`, padded on one side."""
    length = max(map(len, rows))
    ids, mask = np.full((len(rows), length), pad_id), np.zeros((len(rows), length), np.int64)
    for i, row in enumerate(rows):
        kept = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        ids[i, kept], mask[i, kept] = row, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def stack(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The layers of an encoder, wherever its family keeps them."""
    encoder = getattr(model, model.base_model_prefix, model)
    return encoder.encoder.layer if hasattr(encoder, "encoder") else encoder.layers


@torch.no_grad()
def recorded(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], prefix: str = "") -> Arrays:
    """Runs the model and keeps, in float32, what it makes.

    Returns:
      `embeddings [n l d]` (what enters the first layer), `layers [L n l d]` (what leaves each layer, before any final
      norm), `states [n l d]` (`last_hidden_state`, after the final norm), `logits [n l v]` of a MaskedLM, and the
      inputs `token_ids`, `attention_mask`; every name after `prefix`.
    """
    seen: list[torch.Tensor] = []
    layers = stack(model)
    encoder = getattr(model, model.base_model_prefix, model)
    last: list[torch.Tensor] = []
    hooks = [layers[0].register_forward_pre_hook(lambda _, x, kw: seen.append(_first(x, kw)), with_kwargs=True)]
    hooks += [layer.register_forward_hook(lambda _, __, y: seen.append(_tensor(y))) for layer in layers]
    hooks.append(encoder.register_forward_hook(lambda _, __, y: last.append(y[0])))
    output = model(**inputs)
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(layers) + 1
    arrays = {
        "token_ids": inputs["input_ids"].to(torch.int32),
        "attention_mask": inputs["attention_mask"].to(torch.int32),
        "embeddings": seen[0],
        "layers": torch.stack(seen[1:]),
        "states": last[0],
    }
    if "logits" in output:
        arrays["logits"] = output.logits
    return {prefix + name: numpy(x) for name, x in arrays.items()}


def numpy(x: torch.Tensor) -> np.ndarray:
    """An array, floats as float32."""
    return (x.float() if x.is_floating_point() else x).detach().numpy()


def written(case: str, arrays: Arrays, about: Mapping[str, Any]) -> None:
    """Writes `golden.npz` and `texts.json` beside a checkpoint."""
    folder = CHECKPOINTS / case
    for name, array in arrays.items():
        assert array.dtype != np.float64 and array.dtype != object, (name, array.dtype)
        assert not np.issubdtype(array.dtype, np.floating) or np.isfinite(array).all(), (case, name)
    np.savez_compressed(folder / "golden.npz", **{name: array.copy() for name, array in arrays.items()})
    record = {**about, "versions": versions()}
    (folder / "texts.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{case}: {size / 1000:.0f} kB; " + ", ".join(f"{name} {list(x.shape)}" for name, x in arrays.items()))


def versions() -> dict[str, str]:
    """Of everything that decides the numbers."""
    packages = ("torch", "transformers", "tokenizers", "safetensors", "sentence-transformers", "pylate")
    installed = {name: version(name) for name in packages if list(distributions(name=name))}
    return {"python": platform.python_version()} | installed


def emptied(case: str) -> Path:
    """The case's folder, without the files of an earlier run."""
    folder = CHECKPOINTS / case
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def readable(folder: Path) -> None:
    """Gives every file the usual mode; safetensors writes for its owner alone."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def _first(arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> torch.Tensor:
    return arguments[0] if arguments else keywords["hidden_states"]


def _tensor(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]
