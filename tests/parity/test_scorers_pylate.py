"""The rules of MaxSim, and exact search, beside the scorers of ColBERT, PyLate and BGE-M3."""

import warnings
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxret.ops.maxsim import RULES
from tests.parity.ragged import padded, searched, token_vectors
from tests.parity.tolerances import LAYER

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # torch.jit.script's
    from colbert.modeling.colbert import colbert_score
    from pylate.scores import colbert_scores

    from tests.parity.make_losses import M3


def stanford(q, d, q_mask, d_mask):
    """One query at a time, without padding, against all documents."""
    rows = [colbert_score(row[None, mask], d.clone(), d_mask[..., None]) for row, mask in zip(q, q_mask, strict=True)]
    return torch.stack(rows)


def pylate(q, d, q_mask, d_mask):
    return colbert_scores(q, d, queries_mask=q_mask.float(), documents_mask=d_mask.float())


def bge_m3(q, d, q_mask, d_mask):
    """One document at a time, without padding; the mask of the queries has [CLS], which has no vector."""
    with_cls = torch.cat([torch.ones(len(q), 1), q_mask.float()], dim=1)
    scorer = SimpleNamespace(temperature=1.0)
    columns = [
        M3.EncoderOnlyEmbedderM3Model.compute_colbert_score(scorer, q, row[None, mask], with_cls)
        for row, mask in zip(d, d_mask, strict=True)
    ]
    return torch.cat(columns, dim=1)


LIBRARIES = {"colbert": stanford, "pylate": pylate, "bge_m3": bge_m3}


@pytest.fixture(scope="module")
def theirs():
    arrays = [x for rows in token_vectors() for x in padded(rows)]
    q, q_mask, d, d_mask = map(torch.from_numpy, arrays)
    return {name: library(q, d, q_mask, d_mask).numpy() for name, library in LIBRARIES.items()}


@pytest.mark.parametrize("rule", LIBRARIES)
def test_a_rule_gives_its_librarys_scores(theirs, rule):
    (q, q_mask), (d, d_mask) = map(padded, token_vectors())
    np.testing.assert_allclose(RULES[rule](*map(jnp.asarray, (q, d, q_mask, d_mask))), theirs[rule], atol=LAYER)


def test_the_rules_are_not_the_same(theirs):
    assert np.abs(theirs["colbert"] - theirs["pylate"]).max() > 0.01
    assert np.abs(theirs["colbert"] - theirs["bge_m3"]).max() > 0.01


def test_search_gives_the_scores_of_colbert_and_of_bge_m3(theirs):
    queries, documents = token_vectors()
    found, lengths = searched(queries, documents), np.array([[len(row)] for row in queries], np.float32)
    np.testing.assert_allclose(found, theirs["colbert"], atol=LAYER)
    np.testing.assert_allclose(found / lengths, theirs["bge_m3"], atol=LAYER)
