"""What PEFT's `adapter_config.json` says of a LoRA adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxret.errors import InputError
from jaxret.files import read_json
from jaxret.nn.lora import LoraConfig

SETTINGS = "adapter_config.json"
_READ = ("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora")
_FIXED: dict[str, tuple] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}
# They choose modules, which the tensors' names tell as well, or say how the adapter was made, run or stored.
_IDLE = (
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
)


@dataclass(frozen=True)
class Settings:
    """A LoRA adapter's settings.

    Attributes:
      rank, alpha, dropout: as PEFT has them (`r`, `lora_alpha`, `lora_dropout`).
      rank_pattern, alpha_pattern: other ranks and alphas, by regular expressions for the end of a module's path.
      rslora: the scale is `alpha / sqrt(rank)` (Kalajdzievski 2023), not `alpha / rank`.
    """

    rank: int
    alpha: float
    dropout: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Reads the file; raises InputError for a setting that changes the model in a way that we do not have."""
        record = read_json(path)
        if not isinstance(record, dict) or not {"peft_type", "r", "lora_alpha"} <= set(record):
            raise InputError(path, "not PEFT's: no peft_type, r, lora_alpha", "Give a folder that PEFT saved.")
        for name, value in record.items():
            if name in _FIXED and value not in _FIXED[name]:
                known = ", ".join(repr(choice) for choice in _FIXED[name])
                raise InputError(path, f"{name} {value!r} is not supported", f"It may be {known}.")
            if value and name not in (*_READ, *_FIXED, *_IDLE):
                problem = f"{name} {value!r} is not supported"
                raise InputError(path, problem, "Merge the adapter with PEFT and load the merged model.")
        rank_pattern, alpha_pattern = record.get("rank_pattern") or {}, record.get("alpha_pattern") or {}
        numbers = (record["r"], record["lora_alpha"], *rank_pattern.values(), *alpha_pattern.values())
        if not all(isinstance(number, int | float) and number > 0 for number in numbers):
            raise InputError(path, f"ranks and alphas {numbers} are not all above 0", "Mend the file.")
        return cls(
            record["r"],
            float(record["lora_alpha"]),
            float(record.get("lora_dropout") or 0),
            rank_pattern,
            {pattern: float(alpha) for pattern, alpha in alpha_pattern.items()},
            bool(record.get("use_rslora")),
        )

    @staticmethod
    def record(config: LoraConfig, ranks: Mapping[str, int], base_model: str) -> dict[str, Any]:
        """What to write for an adapter whose modules have these ranks, all with the scale of `config`."""
        others = {module: rank for module, rank in ranks.items() if rank != config.rank}
        return {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": base_model or None,
            "inference_mode": True,
            "r": config.rank,
            "lora_alpha": _number(config.alpha),
            "lora_dropout": config.dropout,
            "target_modules": list(ranks),
            "rank_pattern": others,
            "alpha_pattern": {module: _number(config.scale * rank) for module, rank in others.items()},
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "modules_to_save": None,
        }

    @property
    def scale(self) -> float:
        """What updates are multiplied by where no pattern says otherwise."""
        return self._scale(self.rank, self.alpha)

    def rank_of(self, module: str) -> int:
        """The rank of a module's update."""
        return _by_pattern(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What a module's update is multiplied by."""
        return self._scale(self.rank_of(module), _by_pattern(self.alpha_pattern, module, self.alpha))

    def _scale(self, rank: int, alpha: float) -> float:
        return alpha / (rank**0.5 if self.rslora else rank)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    found = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    return next(found, default)


def _number(value: float) -> int | float:
    return round(value) if abs(value - round(value)) < 1e-9 else value
