"""Token vectors of a BEIR folder for the benchmarks of late interaction."""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from processes import HERE, minilm


def token_encoder(model: Path | None = None) -> Any:
    """A TextEncoder of token vectors alone: of a folder that `jaxret train` wrote, or of all-MiniLM-L6-v2."""
    from jaxret.runtime.compile_cache import use_compile_cache
    from jaxret.runtime.layouts import load_pretrained
    from jaxret.runtime.mesh import device_mesh
    from jaxret.runtime.model import DESCRIPTION, load_model
    from jaxret.search.encode import TextEncoder

    use_compile_cache()
    mesh, model = device_mesh(), model or minilm()
    own = (model / DESCRIPTION).exists()
    loaded, params = load_model(model, mesh)[:2] if own else load_pretrained(str(model), mesh)
    return TextEncoder(replace(loaded, config=replace(loaded.config, heads=("multi_vector",))), params, mesh)


def first_vectors(args: argparse.Namespace, documents: int) -> tuple[Any, Any, Any]:
    """The encoder, the token vectors of the first so many passages of `args.data`, and of its first queries."""
    from jaxret.data.beir import BeirFolder
    from jaxret.eval.systems import judged
    from jaxret.search.corpus import passage_texts

    data, encoder = BeirFolder(args.data), token_encoder(args.model)
    passages = passage_texts(data.corpus, encoder.model.text.title_separator)
    corpus = encoder.passages([passages[row] for row in range(min(documents, len(passages)))])
    return encoder, corpus, encoder.queries(judged(data, args.split)[1][: args.queries])


def in_turn(
    search: Any, queries: Any, forms: dict[str, Any], choose: Callable[[Any], None], rounds: int
) -> dict[str, list[float]]:
    """Seconds of a search in each of its forms: the first call, which compiles, and so many more; all give the same."""
    found, seconds = {}, {form: [] for form in forms}
    for _ in range(rounds + 1):
        for form, value in forms.items():
            choose(value)
            start = time.perf_counter()
            found[form] = search(queries)
            seconds[form].append(time.perf_counter() - start)
    (scores, positions), *others = found.values()
    assert all(other[0].tobytes() == scores.tobytes() and np.array_equal(other[1], positions) for other in others)
    return seconds


def options(description: str, queries: int) -> argparse.ArgumentParser:
    """What the benchmarks of one folder are told: its queries, the first so many, and the model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent / "data" / "xquad-en")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", type=Path, help="a folder that jaxret train wrote")
    parser.add_argument("--queries", type=int, default=queries, help="so many of the split's, the first ones")
    return parser
