from __future__ import annotations

import pytest

from jaxret.errors import InputError
from jaxret.eval.measures import DEFAULT_MEASURES, Measure, parse_measure

SPELLINGS = {
    "ndcg_at_10": "ndcg@10 nDCG@10 NDCG@10 ndcg_cut_10 ndcg_cut.10 ndcg_at_10 ndcg_10",
    "mrr_at_10": "RR@10 MRR@10 mrr_at_10 recip_rank@10",
    "mrr": "recip_rank RR mrr",
    "recall_at_100": "R@100 recall@100 recall_at_100 recall_100 recall.100",
    "precision_at_10": "P@10 P_10 precision_at_10",
    "map_at_100": "AP@100 MAP@100 map_at_100 map_cut_100",
    "map": "AP map",
    "ndcg": "nDCG ndcg",
    "hit_rate_at_10": "hit_rate_at_10 success_10 Success@10 hits@10 HR@10",
    "recall_cap_at_10": "recall_cap_at_10 recall_cap@10 R_cap@10 capped_recall@10",
}


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in SPELLINGS.items() for text in texts.split()])
def test_spellings(key, text):
    assert parse_measure(text).key == key


@pytest.mark.parametrize(
    "text", ["", "ndgc@10", "ndcg@0", "ndcg@-1", "ndcg@ten", "ndcg@", "@10", "recall_at_", "ndcg@1.5"]
)
def test_unknown(text):
    with pytest.raises(InputError, match=r"map@k.*ndcg@k.*recall_cap@k"):
        parse_measure(text)


@pytest.mark.parametrize("text", ["R", "precision", "success"])
def test_cutoff_needed(text):
    with pytest.raises(InputError, match=f"{text.lower()}@10"):
        parse_measure(text)


def test_defaults_parse_to_themselves():
    assert [parse_measure(measure.key) for measure in DEFAULT_MEASURES] == list(DEFAULT_MEASURES)
    assert Measure("ndcg", 10) in DEFAULT_MEASURES and len(set(DEFAULT_MEASURES)) == 36
