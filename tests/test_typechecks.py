"""The hook of tests/typechecks.py is on: what mypy cannot see is an error in every test."""

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from jaxret.ops.distillation import embedding_mse
from jaxret.search.budget import part_bytes


def vectors(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize("teacher", [vectors(3), vectors(2, 4), vectors(2, 3, dtype=np.int32), None])
def test_arrays_of_another_shape_or_dtype(teacher):
    """The second has another width than the student's vectors, which no annotation alone can tell."""
    with pytest.raises(TypeCheckError, match="embedding_mse"):
        embedding_mse(np.zeros((2, 3), np.float32), teacher)


def test_other_types():
    with pytest.raises(BeartypeCallHintViolation, match="budget_gb"):
        part_bytes("2", 0)
