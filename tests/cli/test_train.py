"""Settings of `jaxret train`, bound in gin as docs/training.md has them, and what comes of them."""

import json

from jaxret.train.progress import HISTORY, history

LARGE = """from __gin__ import dynamic_registration
include "{file}"
from jaxret.data import batches
from jaxret.data import kinds
from jaxret.data import text
from jaxret.eval import retrieval
from jaxret.train import loop
from jaxret.train.objectives import represented
from jaxret.train.objectives import tiled
loop.train.workdir = "{workdir}"
loop.train.steps = 1
text.TextConfig.passage_max_len = 64
loop.train.objective = @represented.objective_over()
represented.objective_over.comparisons = [@tiled.tiled_contrast]
represented.objective_over.weight = [1.0]
tiled.tiled_contrast.temperature = {{"dense": 0.05}}
tiled.tiled_contrast.weight = {{"dense": 1.0}}
tiled.tiled_contrast.columns = 3
batches.training_batches.length_buckets = [@short/kinds.Bucket(), @long/kinds.Bucket()]
short/kinds.Bucket.max_len = 32
short/kinds.Bucket.global_batch_size = 16
long/kinds.Bucket.max_len = 64
long/kinds.Bucket.global_batch_size = 8
loop.train.evaluate = @retrieval.RetrievalEvaluation()
loop.train.best_metric = "dense_recall_at_5"
retrieval.RetrievalEvaluation.folder = "{data}"
retrieval.RetrievalEvaluation.split = "train"
retrieval.RetrievalEvaluation.heads = ("dense",)
retrieval.RetrievalEvaluation.measures = ("ndcg@10", "R@5")
retrieval.RetrievalEvaluation.queries = 8
"""

PACKED = """from __gin__ import dynamic_registration
include "{file}"
from jaxret.data import masking
from jaxret.data import running_text
from jaxret.data import text
from jaxret.data import text_batches
from jaxret.train import loop
from jaxret.train.objectives import masked_lm
loop.train.workdir = "{workdir}"
loop.train.log_period = 1
loop.train.profile_steps = (2, 2)
loop.train.objective = @masked_lm.masked_language_modeling()
loop.train.batches = @text_batches.text_batches
text_batches.text_batches.sources = [@running_text.TextSource()]
text_batches.text_batches.packed = True
text_batches.text_batches.masking = @masking.MaskedLM()
running_text.TextSource.path = "{data}"
text.TextConfig.passage_max_len = 96
"""


def written(tmp_path, text, **names):
    file, workdir = tmp_path / "run.gin", tmp_path / "run"
    file.write_text(text.format(workdir=workdir, **names))
    return workdir, ("train", f"--gin_file={file}")


def test_tiles_buckets_and_an_evaluation(jaxret, gin_file, beir_of_animals, tmp_path, caplog):
    workdir, command = written(tmp_path, LARGE, file=gin_file, data=beir_of_animals)
    code, _, err = jaxret(*command)
    assert code == 0, err
    assert "2 shapes of batches: [16 32] x [16 1 32], [8 32] x [8 1 64]" in caplog.text
    (row,) = history(workdir / HISTORY)
    assert row["effective_negatives"] >= 7 and 0 < row["eval/dense_ndcg_at_10"] < 1
    best = json.loads((workdir / "best.json").read_text())
    assert best == {"step": 1, "metric": "dense_recall_at_5", "value": row["eval/dense_recall_at_5"]}


def test_packed_rows_have_little_padding_and_a_step_is_profiled(jaxret, gin_file, beir_of_animals, tmp_path):
    workdir, command = written(tmp_path, PACKED, file=gin_file, data=beir_of_animals)
    code, _, err = jaxret(*command)
    assert code == 0, err
    assert 0 < history(workdir / HISTORY)[0]["padding_share"] < 0.3, "one text a row: more than half"
    assert list((workdir / "profile").rglob("*.xplane.pb"))
