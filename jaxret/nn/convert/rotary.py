"""How published records write rotary positions: `rope_theta` until 2025, `rope_parameters` since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxret.errors import InputError
from jaxret.nn.config import EncoderConfig

_SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def rotary_fields(record: Mapping[str, Any], *, mixed: bool) -> dict[str, Any]:
    """`rope_base` and, as the record has them, `local_rope_base` (`mixed`: ModernBERT) and `rope_scaling`."""
    parameters = record.get("rope_parameters") or {}
    if mixed:
        near, far = (parameters.get(kind) or {} for kind in ("sliding_attention", "full_attention"))
        return {
            "rope_base": float(far.get("rope_theta", record.get("global_rope_theta", 160_000.0))),
            "local_rope_base": float(near.get("rope_theta", record.get("local_rope_theta") or 10_000.0)),
            "rope_scaling": _scaling(far),
        }
    base = parameters.get("rope_theta", record.get("rope_theta", 10_000.0))
    return {"rope_base": float(base), "rope_scaling": _scaling(parameters or record.get("rope_scaling") or {})}


def rotary_record(config: EncoderConfig, *, mixed: bool) -> dict[str, Any]:
    """The opposite, in both spellings."""
    if mixed:
        local = config.local_rope_base or config.rope_base
        near, far = ({"rope_theta": base, "rope_type": "default"} for base in (local, config.rope_base))
        both = {"full_attention": far, "sliding_attention": near}
        return {"rope_parameters": both, "global_rope_theta": config.rope_base, "local_rope_theta": local}
    kind: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling:
        kind = {"rope_type": "llama3", **dict(zip(_SCALING, config.rope_scaling, strict=True))}
    record: dict[str, Any] = {"rope_theta": config.rope_base}
    record["rope_parameters"] = {"rope_theta": config.rope_base, **kind}
    return record | ({"rope_scaling": kind} if config.rope_scaling else {})


def _scaling(parameters: Mapping[str, Any]) -> tuple[float, ...]:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind == "default":
        return ()
    if kind != "llama3":
        raise InputError("config.json", f"unknown rope_type {kind!r}", "Known are default and llama3.")
    return tuple(float(parameters[name]) for name in _SCALING)
