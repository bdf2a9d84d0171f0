"""Writes tests/goldens/pickles with torch: the same tensors in every way that torch.save has. Run from the root."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "goldens" / "pickles"
DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")


def tensors() -> OrderedDict:
    torch.manual_seed(0)
    grid = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    made = OrderedDict((dtype, torch.randn(3, 2).mul(4).to(getattr(torch, dtype))) for dtype in DTYPES)
    made["transposed"] = grid.T
    made["middle"] = grid[1:3, 2:5]
    made["every_other"] = grid[::2, ::3]
    made["tied"] = made["float32"]
    made["expanded"] = torch.tensor([[1.5], [2.5]]).expand(2, 3)
    made["scalar"] = torch.tensor(3.25)
    made["empty"] = torch.zeros(0, 4)
    made["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
    return made


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    values = tensors()
    torch.save(values, FOLDER / "zip.bin")
    torch.save(values, FOLDER / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(3, 2).state_dict(), FOLDER / "state_dict.pt")
    nested = {
        "epoch": 3,
        "model": {"a": torch.ones(2), "b": OrderedDict(c=torch.zeros(1))},
        "note": "x",
        "rates": [0.1],
    }
    torch.save(nested, FOLDER / "nested.pt")
    torch.save({"x": torch.arange(5).to(torch.uint16)}, FOLDER / "version_3.pt")
    torch.save(torch.ones(2), FOLDER / "bare.pt")
    torch.save(torch.nn.Linear(3, 2), FOLDER / "module.pt")
    arrays = {name: value.detach().to(torch.float64).numpy() for name, value in values.items()}
    np.savez(FOLDER / "values.npz", **arrays)
    (FOLDER / "made_with.json").write_text(json.dumps({"torch": torch.__version__}) + "\n")


if __name__ == "__main__":
    main()
