"""Cross-encoders in the layouts of their libraries, from texts to scores, against what the libraries made of them."""

import jax
import numpy as np
import pytest

import jaxret
from jaxret.data.pairs import padded_types, pair_rows
from jaxret.data.text import padded
from jaxret.errors import InputError
from jaxret.nn.convert.tensor_files import open_tensors, write_safetensors
from jaxret.runtime.layouts.cross_encoders import describe_cross_encoder, load_cross_encoder, save_cross_encoder
from jaxret.runtime.mesh import device_mesh
from tests.parity.cases import cases, names
from tests.parity.tolerances import MODEL

CASES = cases("cross_encoder")
each_case = pytest.mark.parametrize("case", CASES, ids=names(CASES))


@pytest.fixture(scope="module")
def opened():
    """Each case, loaded once."""
    found = {}

    def load(case):
        if case.name not in found:
            found[case.name] = jaxret.CrossEncoder.from_pretrained(case.folder)
        return found[case.name]

    return load


@each_case
def test_pairs_become_the_same_ids_and_types(case):
    model = describe_cross_encoder(case.folder).model
    rows = pair_rows(model.tokenizer, model.text, *zip(*case.about["pairs"], strict=True))
    mask = case.golden["attention_mask"].astype(bool)
    assert mask.all(axis=1).any(), "no pair is cut"
    assert [row.ids for row in rows] == [
        ids[kept].tolist() for ids, kept in zip(case.golden["token_ids"], mask, strict=True)
    ]
    types = case.golden.get("token_types", np.zeros_like(case.golden["token_ids"]))
    np.testing.assert_array_equal(padded_types(rows, mask.shape[1]), types)
    assert model.tokenizer.pair_frame.typed == ("token_types" in case.golden)


@each_case
def test_pairs_become_the_same_scores(case, opened):
    encoder = opened(case)
    logits, scores = case.golden["logits"], case.golden["scores"]
    assert np.ptp(logits) > 0.1
    for activation, theirs in (("identity", logits), (None, scores)):
        ours = encoder.predict(case.about["pairs"], activation_fn=activation)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=MODEL * np.abs(theirs).max(), rtol=0)
    own = "sigmoid" if case.name == "ce_roberta" else "identity"
    assert encoder.model.config.activation_fn == own
    assert (np.abs(logits - scores).max() < 1e-6) == (own == "identity")


def test_padding_changes_nothing(opened):
    (case,) = [case for case in CASES if case.name == "ce_modernbert"]  # the mean, and layers with a window
    model, params = opened(case).model, opened(case).params
    rows = pair_rows(model.tokenizer, model.text, *zip(*case.about["pairs"][:2], strict=True))
    scores = [
        jax.jit(model.__call__)(params, padded([row.ids for row in rows], length), padded_types(rows, length))
        for length in (48, 64)
    ]
    np.testing.assert_allclose(*scores, atol=1e-5)


@each_case
def test_a_saved_model_is_the_same_model(case, tmp_path):
    model, params = load_cross_encoder(case.folder, device_mesh(), truncation="only_second", max_len=30)
    for layout in ("auto", "jaxret"):
        folder = save_cross_encoder(tmp_path / layout, model, params, layout)
        again, same = load_cross_encoder(folder, device_mesh())
        assert (again.config, again.text) == (model.config, model.text)
        assert jax.tree.structure(same) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, same, params)
        with pytest.raises(InputError, match="not empty"):
            save_cross_encoder(folder, model, params)


HEADS = {
    "ce_bert": ("bert.pooler.dense.bias", "score/transform/bias"),
    "ce_roberta": ("classifier.out_proj.bias", "score/classifier/bias"),
    "ce_modernbert": ("head.norm.bias", "score/norm/bias"),
}


@pytest.mark.parametrize("name", list(HEADS))
def test_foreign_missing_and_misshapen_tensors_are_listed_together(copied, name):
    folder, (theirs, ours) = copied(name), HEADS[name]
    tensors = {key: tensor.read() for key, tensor in open_tensors(folder).items()}
    tensors["classifier.stray"] = tensors.pop(theirs)
    tensors["classifier.bias" if name != "ce_roberta" else "classifier.dense.bias"] = np.zeros(3, np.float32)
    write_safetensors(folder, tensors.items())
    with pytest.raises(InputError) as caught:
        load_cross_encoder(folder, device_mesh())
    problem = caught.value.problem
    assert "1 unknown tensors: classifier.stray" in problem
    assert f"1 missing tensors: {theirs} for {ours}" in problem
    assert "1 shapes that differ: classifier." in problem and "is [3], not" in problem


IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(
    ("name", "file", "changes", "message"),
    [
        ("ce_bert", "config.json", {"id2label": {"0": "no", "1": "yes"}}, "id2label: 2 labels"),
        ("ce_bert", "config.json", {"id2label": None}, "id2label: 2 labels"),
        ("ce_bert", "config.json", {"architectures": ["BertModel"]}, "no cross-encoder"),
        ("ce_bert", "config.json", {"model_type": "llama"}, "llama"),
        ("ce_bert", "config_sentence_transformers.json", {"activation_fn": "mine.Function"}, "mine.Function"),
        (
            "ce_bert",
            "config_sentence_transformers.json",
            {"prompts": {"query": "find: "}, "default_prompt_name": "query"},
            "queries get a prompt",
        ),
        ("ce_modernbert", "config.json", {"classifier_pooling": "median"}, "ScoreHeadConfig.pooling"),
        ("ce_modernbert", "config.json", {"classifier_activation": "cube"}, "classifier_activation: unknown 'cube'"),
    ],
)
def test_what_we_do_not_do_is_refused(copied, name, file, changes, message):
    with pytest.raises(InputError, match=message):
        describe_cross_encoder(copied(name, {file: changes}))


def test_settings_of_the_library_are_read(copied):
    settings = {"sentence_bert_config.json": {"max_seq_length": 21}}
    library = {"config_sentence_transformers.json": {"activation_fn": None}}
    model = describe_cross_encoder(copied("ce_bert", settings | library)).model
    assert model.text.max_len == 21 and model.config.activation_fn == "sigmoid"
    with pytest.raises(InputError, match="at most 48"):
        describe_cross_encoder(CASES[0].folder, max_len=49)
    with pytest.raises(InputError, match=r"unknown setting 'pooling'.* max_len, truncation"):
        describe_cross_encoder(CASES[0].folder, pooling="mean")
