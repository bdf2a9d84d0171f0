"""Plain, in chunks, in tiles, on any mesh: one loss, one gradient, one state, with dropout on and uneven chunks."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from jaxret.runtime.mesh import device_mesh
from jaxret.train.objective import objective_of
from jaxret.train.objectives.contrastive import contrast, improved_contrast
from jaxret.train.objectives.distillation import distill, distill_ranked, self_distill
from jaxret.train.objectives.memory import remembering
from jaxret.train.objectives.regularized import at_sizes, labelled_pairs, sparsity
from jaxret.train.objectives.represented import objective_over
from jaxret.train.objectives.tiled import tiled_contrast
from jaxret.train.program import global_batch, step_program
from jaxret.train.start import begun

B, N, SEED = 16, 3, 3
EVEN = dict.fromkeys(("dense", "lexical", "multi_vector"), 1.0)
HALF = dict.fromkeys(EVEN, 0.5)
KEPT = optax.trace(0.0)  # its state is the last gradient
ONE = (1, 1, 1)


def every_comparison(contrasting):
    """All comparisons at once: a wrong gradient of one is a wrong gradient of the sum."""
    knobs = {"temperature": HALF, "weight": EVEN}
    ours = functools.partial(contrasting, **knobs)
    dense = functools.partial(contrast, temperature={"dense": 0.5}, weight={"dense": 1.0})
    found = [
        ours,
        functools.partial(improved_contrast, alpha=0.7, beta=0.5, gamma=0.3, **knobs),
        functools.partial(distill, weight=EVEN),
        functools.partial(distill_ranked, **knobs),
        functools.partial(self_distill, temperature=0.5, ensemble=EVEN, weight=EVEN),
        functools.partial(sparsity, query_flops=0.1, passage_flops=0.2, query_norm=0.3, passage_norm=0.4),
        functools.partial(at_sizes, comparison=dense, sizes=(4, 2)),
        functools.partial(labelled_pairs, temperature=0.5, miner_epsilon=None),
    ]
    return objective_over(found, weight=[1.0 + number for number in range(len(found))])


OBJECTIVES = {
    "comparisons": every_comparison(contrast),
    "tiled": every_comparison(functools.partial(tiled_contrast, columns=4)),
    "memory": remembering(size=16, temperature=0.5, languages=2, momentum=0.9),
}
PLAIN = {"tiled": "comparisons"}  # whose numbers they must be, where not their own


@pytest.fixture(scope="module")
def batch(model):
    random = np.random.default_rng(0)
    query = random.integers(7, model.tokenizer.size, (B, 6)).astype(np.int32)
    passage = random.integers(7, model.tokenizer.size, (B, N, 9)).astype(np.int32)
    query[:5, 4:], passage[3:9, 1, 5:] = -1, -1
    passage[7, 0], passage[11, 2] = passage[2, 0], passage[5, 0]
    keys = np.arange(B * N, dtype=np.int32).reshape(B, N)
    keys[7, 0], keys[11, 2] = keys[2, 0], keys[5, 0]  # copies, which are nobody's negatives
    found = {"query": query, "passage": passage, "passage_key": keys, "positive_keys": keys[:, :1]}
    scores = random.normal(size=(B, N)).astype(np.float32)
    return found | {"language": np.arange(B, dtype=np.int32) % 2, "teacher_scores": scores}


@pytest.fixture(scope="module")
def stepped(model, batch, random_params):
    """Metrics, gradient and state after a step."""
    encoder = dataclasses.replace(model.config.encoder, dropout=0.3)
    dropping = dataclasses.replace(model, config=dataclasses.replace(model.config, encoder=encoder))

    @functools.cache
    def found(name, rows, shape):
        chunked, whole = dataclasses.replace(dropping, chunk_rows=rows), objective_of(OBJECTIVES[name])
        mesh = device_mesh(shape, jax.devices()[: np.prod(shape)])
        step, abstract = step_program(chunked, whole, KEPT, SEED, mesh)
        first = jax.tree.map(np.asarray, begun(chunked, whole, KEPT, 0, random_params(model.abstract_params())))
        before = jax.device_put(first, jax.tree.map(lambda x: x.sharding, abstract))
        after, metrics = step(before, global_batch(batch, mesh))
        return metrics, after.optimizer.trace, after.objective

    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("comparisons", shape) for shape in [(8, 1, 1), (2, 2, 2), (1, 4, 2)]),
        ("tiled", (2, 2, 2)),
        ("memory", (8, 1, 1)),
        ("memory", (2, 2, 2)),
    ],
)
def test_chunks_tiles_and_meshes_change_nothing(stepped, name, shape):
    expected, found = stepped(PLAIN.get(name, name), 0, ONE), stepped(name, 3, shape)
    for metric in expected[0].keys() & found[0].keys():
        np.testing.assert_allclose(found[0][metric], expected[0][metric], rtol=1e-5, atol=1e-5, err_msg=metric)
    assert "loss" in found[0] and "gradient_norm" in found[0]
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        close = 1e-5 * max((np.abs(x).max() for x in jax.tree.leaves(theirs)), default=0)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=close), ours, theirs)
