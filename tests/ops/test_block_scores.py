import jax
import numpy as np

from jaxret.ops.block_scores import Terms, lexical_scores

# As outside the tests, which compile without them.
OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def test_lexical_products_are_rounded_before_they_are_added():
    random = np.random.default_rng(0)
    ids = np.sort(random.integers(0, 50, (200, 30)), axis=1).astype(np.int32)
    weights = random.random((200, 30), np.float32)
    queries = np.where(random.random((50, 8)) < 0.7, random.random((50, 8), np.float32), np.float32(0))
    compiled = jax.jit(lexical_scores).lower(queries, Terms(ids, weights)).compile(OPTIMIZED)
    expected = np.zeros((200, 8), np.float32)
    for term in range(30):
        expected += weights[:, term, None] * queries[ids[:, term]]
    np.testing.assert_array_equal(compiled(queries, Terms(ids, weights)), expected.T)
