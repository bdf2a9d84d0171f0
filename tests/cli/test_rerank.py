"""`jaxret rerank`, and a cross-encoder as teacher of `jaxret score` and `jaxret mine`."""

import json

import jax
import numpy as np
import pytest

import jaxret as package
from jaxret.data.beir import BeirFolder
from jaxret.data.pairs import PairConfig
from jaxret.nn.config import EncoderConfig
from jaxret.nn.cross_encoder import CrossEncoderConfig
from jaxret.runtime.cross_encoder import CrossEncoderModel
from jaxret.runtime.layouts.cross_encoders import save_cross_encoder
from jaxret.search.run_files import read_run
from tests.cli.test_wrong_input import refused


@pytest.fixture(scope="session")
def reranker(tokenizer, random_params, tmp_path_factory):
    """The workdir of a tiny cross-encoder."""
    sizes = EncoderConfig(tokenizer.size, width=16, num_layers=1, num_heads=2, mlp_width=12, num_types=2)
    model = CrossEncoderModel(CrossEncoderConfig(sizes), PairConfig(40), tokenizer)
    folder = tmp_path_factory.mktemp("reranker") / "model"
    params = jax.tree.map(lambda x: 3 * x, random_params(model.abstract_params()))  # scores far from each other
    return save_cross_encoder(folder, model, params)


@pytest.fixture(scope="session")
def opinions(reranker, beir_of_animals):
    """{query: {document: score}} of the cross-encoder, every pair."""
    folder = BeirFolder(beir_of_animals)
    passages = [f"{title} {text}" for title, text in zip(folder.corpus.titles, folder.corpus.texts, strict=True)]
    encoder = package.CrossEncoder.from_pretrained(reranker)
    pairs = [(query, passage) for query in folder.queries.texts for passage in passages]
    scores = encoder.predict(pairs, activation_fn="identity").reshape(len(folder.queries), -1)
    assert np.ptp(scores) > 0.1
    rows = [dict(zip(folder.corpus.ids, row.tolist(), strict=True)) for row in scores]
    return dict(zip(folder.queries.ids, rows, strict=True))


@pytest.fixture
def run(searched):
    return searched / "runs/dense.trec"


def written(jaxret, animals, run, model, output, *more):
    arguments = ("--model", model, "--run", run, "--data", animals, "--output", output, *more)
    code, out, err = jaxret("rerank", *arguments)
    assert code == 0, err
    assert out.strip() == f"{output}: 32 queries"
    return read_run(output).to_dict()


@pytest.mark.parametrize("rest", ["keep", "drop"])
def test_a_cross_encoder_reranks(jaxret, animals, run, reranker, opinions, tmp_path, rest):
    output = tmp_path / "again.trec"
    found = written(jaxret, animals, run, reranker, output, "--top_k", 5, "--rest", rest, "--tag", "ce")
    for query, before in read_run(run).to_dict().items():
        expected = {name: opinions[query][name] for name in list(before)[:5]}
        best = dict(list(found[query].items())[:5])
        assert best == pytest.approx(expected, abs=1e-5)
        assert list(found[query])[5:] == (list(before)[5:] if rest == "keep" else [])
    assert output.read_text().splitlines()[0].endswith(" ce")
    record = json.loads((tmp_path / "again.trec.manifest.json").read_text())
    assert record["model"]["system"] == "cross_encoder" and record["settings"]["top_k"] == 5


@pytest.mark.parametrize("mode", ["multi_vector", "dense"])
def test_retrievers_rerank(jaxret, animals, trained, searched, tmp_path, mode):
    model = f"{searched / 'index'}@multi_vector" if mode == "multi_vector" else f"{trained}@dense"
    found = written(jaxret, animals, searched / "runs/bm25.trec", model, tmp_path / "o.trec", "--rest", "drop")
    expected = read_run(searched / f"runs/{mode}.trec").to_dict()
    for query, before in read_run(searched / "runs/bm25.trec").to_dict().items():
        assert found[query] == pytest.approx({name: expected[query][name] for name in before}, abs=1e-5)


def test_a_cross_encoder_is_a_teacher(jaxret, animals, run, reranker, opinions, tmp_path):
    triples = tmp_path / "triples.jsonl"
    triples.write_text('["qcat0", "cat0", "cat1", "dog2"]\n["qhen3", "hen3", "owl0"]\n')
    output = tmp_path / "scored.jsonl"
    arguments = ("--teacher", reranker, "--input", triples, "--data", animals, "--output", output)
    code, _, err = jaxret("score", *arguments)
    assert code == 0, err
    for query, *pairs in map(json.loads, output.read_text().splitlines()):
        assert dict(pairs) == pytest.approx({name: opinions[query][name] for name, _ in pairs}, abs=1e-5)
    output = tmp_path / "negatives.tsv"
    code, _, err = jaxret("mine", "--data", animals, "--from", run, "--teacher", reranker, "--output", output)
    assert code == 0, err
    rows = [line.split("\t") for line in output.read_text().splitlines()[1:]]
    assert rows
    for query, name, _ in rows:
        assert opinions[query][name] <= opinions[query][query[1:]] + 1e-5


def test_a_dry_run_writes_nothing(jaxret, animals, run, reranker, tmp_path, compilations):
    arguments = ("--model", reranker, "--run", run, "--data", animals, "--output", tmp_path / "o", "--dry_run")
    code, out, _ = jaxret("rerank", *arguments)
    assert code == 0 and "first 100 of 32 queries" in out and not (tmp_path / "o").exists()
    assert not compilations


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--top_k", 0), ["--top_k", "1 or more"]),
        (("--batch_size", 0), ["--batch_size"]),
        (("--rest", "below"), ["--rest", "keep, drop"]),
        (("--model", "no/model"), ["no/model"]),
        (("--output", "o.trec.gz"), ["--output", ".gz"]),
        (("--run", "nothing.trec"), ["nothing.trec"]),
    ],
)
def test_wrong_input(jaxret, animals, run, reranker, tmp_path, more, parts, compilations):
    arguments = {"--model": reranker, "--run": run, "--data": animals, "--output": tmp_path / "o"}
    arguments |= dict([more])
    refused(jaxret("rerank", *(word for pair in arguments.items() for word in pair)), *parts)
    assert not compilations


def test_what_does_not_fit_together(jaxret, animals, run, reranker, trained, tmp_path, compilations):
    common = ("--data", animals, "--output", tmp_path / "o")
    refused(jaxret("rerank", "--model", run, "--run", run, *common), "scores no texts")
    refused(jaxret("rerank", "--model", f"{reranker}@dense", "--run", run, *common), "without modes", "@dense")
    refused(jaxret("mine", "--from", reranker, *common), "--from", "ranks no corpus", "--teacher")
    refused(jaxret("encode", "--model", reranker, *common), "retriever.json")
    (tmp_path / "strange.trec").write_text("qcat0 Q0 gnu 1 0.5 x\n")
    refused(jaxret("rerank", "--model", reranker, "--run", tmp_path / "strange.trec", *common), "gnu")
    assert not compilations
