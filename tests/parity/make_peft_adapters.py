"""Writes tests/goldens/adapters: PEFT's own folders and what PEFT computes with them. Needs torch and peft.

python -m tests.parity.make_peft_adapters
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.parity.peft_stack import CASES, adapted, stack

GOLDENS = Path(__file__).parents[1] / "goldens" / "adapters"


def main() -> None:
    """Writes a folder for each case, and `golden.npz` with the base weights, inputs and outputs."""
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(2))
    base = stack()
    arrays = {f"base/{name}": tensor.numpy() for name, tensor in base.state_dict().items()}
    with torch.no_grad():
        arrays |= {"x": x.numpy(), "y/none": base(x).numpy()}
        for case in CASES:
            model = adapted(case)
            model.save_pretrained(GOLDENS / case, safe_serialization=case != "pickled")
            (GOLDENS / case / "README.md").unlink(missing_ok=True)
            for path in (GOLDENS / case).iterdir():
                path.chmod(0o644)
            arrays[f"y/{case}"] = model(x).numpy()
    for path in GOLDENS.glob("*/adapter_config.json"):
        record = json.loads(path.read_text())
        record["target_modules"] = sorted(record["target_modules"])  # a set inside PEFT: its order is not fixed
        path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    np.savez(GOLDENS / "golden.npz", **arrays)


if __name__ == "__main__":
    main()
