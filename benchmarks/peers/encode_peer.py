"""One system that embeds texts with all-MiniLM-L6-v2 each time it is told to.

Run by benchmarks/encode_vs_peers.py as `python encode_peer.py LIBRARY DTYPE WEIGHTS TEXTS.json VECTORS.npy`.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from peak import peak_mib

library, dtype, weights, texts, output = sys.argv[1:]
TEXTS = json.loads(Path(texts).read_text())


def ours():
    """jaxret, at its defaults."""
    import jaxret

    jaxret.use_compile_cache()
    model = jaxret.from_pretrained(weights, precision=dtype)
    encode = lambda: model.encode_document(TEXTS).dense  # noqa: E731
    return encode, lambda: f"{len(model._encoder.shapes)} shapes"


def theirs():
    """sentence-transformers, at the best of several batch sizes."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(weights, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    encode = lambda size: model.encode(TEXTS, batch_size=size, convert_to_tensor=True).float().numpy()  # noqa: E731

    def seconds(size: int) -> float:
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            encode(size)
            times.append(time.perf_counter() - begin)
        return min(times)

    best = min((4, 8, 16, 32), key=seconds)
    return lambda: encode(best), lambda: f"batch {best}"


encode, setting = {"jaxret": ours, "sentence_transformers": theirs}[library]()
start = time.perf_counter()
np.save(output, encode())
first = time.perf_counter() - start
print(f"ready {setting()}, first call {first:.2f} s", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    encode()
    print(time.perf_counter() - start, peak_mib(), flush=True)
