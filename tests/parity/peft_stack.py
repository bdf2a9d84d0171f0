"""The original of tests/nn/convert/adapted_stack.py in torch, and adapters of it that PEFT makes. Needs torch, peft."""

from __future__ import annotations

from pathlib import Path

import peft
import torch
from torch import nn

CASES: dict[str, dict] = {
    "plain": {"target_modules": ["up", "down", "head"], "r": 2, "lora_alpha": 5},
    "fused": {"target_modules": ["Wqkv", "up"], "r": 3, "lora_alpha": 4},
    "rslora": {"target_modules": "all-linear", "r": 3, "lora_alpha": 4, "use_rslora": True},
    "patterns": {
        "target_modules": ["Wqkv", "up", "head"],
        "r": 2,
        "lora_alpha": 5,
        "rank_pattern": {"layers.1.mlp.up": 4, "Wqkv": 1},
        "alpha_pattern": {"head": 9, r"layers\.[02]\.attention\.Wqkv": 3},
    },
    "some_layers": {
        "target_modules": ["up", "down"],
        "r": 2,
        "lora_alpha": 5,
        "layers_to_transform": [0, 2],
        "layers_pattern": "layers",
    },
    "pickled": {"target_modules": ["down"], "r": 1, "lora_alpha": 3},
}
CONFIG = {"model_type": "stack"}


class Layer(nn.Module):
    """Attention and MLP without their nonlinear parts."""

    def __init__(self):
        super().__init__()
        self.attention = nn.ModuleDict({"Wqkv": nn.Linear(6, 18, bias=False)})
        self.mlp = nn.ModuleDict({"up": nn.Linear(6, 9, bias=False), "down": nn.Linear(9, 6, bias=False)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """States to states."""
        q, k, v = self.attention["Wqkv"](x).chunk(3, dim=-1)
        x = x + torch.tanh(q * k) + v
        return x + self.mlp["down"](torch.tanh(self.mlp["up"](x)))


class Stack(nn.Module):
    """Three layers and a head."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer() for _ in range(3)])
        self.head = nn.Linear(6, 5, bias=False)
        self.config = dict(CONFIG)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """States to outputs."""
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def stack() -> Stack:
    """The same random weights every time."""
    torch.manual_seed(0)
    return Stack().eval()


def adapted(case: str, **settings: object) -> peft.PeftModel:
    """The stack with a PEFT adapter of random numbers, B not zero."""
    model = peft.get_peft_model(stack(), peft.LoraConfig(**CASES[case] | settings))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model.eval()


def reopened(folder: Path) -> peft.PeftModel:
    """The stack with the adapter of a folder."""
    return peft.PeftModel.from_pretrained(stack(), str(folder)).eval()
