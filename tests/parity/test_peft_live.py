"""PEFT reads what we write, and we read what it writes, in one process."""

import jax
import numpy as np
import peft
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from jaxret.nn.convert.peft import load_adapter, save_adapter
from jaxret.nn.convert.table import Rule, Table
from jaxret.nn.lora import LoraConfig, adapter, joined, lora_params, merged
from tests.nn.convert.adapted_stack import TABLE, stack_output, stack_params
from tests.parity.peft_stack import CASES, adapted, reopened, stack

X = np.float32(np.random.default_rng(3).normal(size=(2, 4, 6)))


@pytest.fixture(scope="module")
def params():
    return stack_params({name: tensor.numpy() for name, tensor in stack().state_dict().items()})


def their_output(model):
    with torch.no_grad():
        return model(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize("case", CASES)
def test_their_adapter_here_and_back(params, case, tmp_path):
    model = adapted(case)
    model.save_pretrained(tmp_path / "theirs")
    leaves, config = load_adapter(tmp_path / "theirs", TABLE, params)
    expected = their_output(model)
    np.testing.assert_allclose(stack_output(joined(params, leaves), X, config), expected, rtol=1e-5, atol=1e-5)
    save_adapter(tmp_path / "ours", leaves, config, TABLE)
    again = reopened(tmp_path / "ours")
    np.testing.assert_allclose(their_output(again), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(their_output(again.merge_and_unload()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("targets", [("attention/.*", "head"), ("attention/(query|value)", "up"), ("down",)])
def test_our_adapter_there(params, random_params, targets, tmp_path):
    config = LoraConfig(targets, rank=3, alpha=4.0)
    leaves = random_params(adapter(lora_params(params, config, jax.random.key(0))), seed=4)
    save_adapter(tmp_path, leaves, config, TABLE, dtype=np.float32)
    expected = stack_output(joined(params, leaves), X, config)
    assert not np.allclose(expected, stack_output(params, X), atol=0.05)
    np.testing.assert_allclose(their_output(reopened(tmp_path)), expected, rtol=1e-5, atol=1e-5)


def test_a_second_adapters_folder(params, tmp_path):
    model = adapted("plain")
    model.add_adapter("second", model.peft_config["default"])
    model.set_adapter("second")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name and "second" in name:
                parameter.fill_(0.2)
    expected = their_output(model)
    model.save_pretrained(tmp_path)
    leaves, config = load_adapter(tmp_path / "second", TABLE, params)
    np.testing.assert_allclose(stack_output(joined(params, leaves), X, config), expected, rtol=1e-5, atol=1e-5)


def test_fresh_leaves_are_drawn_as_peft_draws_them():
    layer = adapted("plain", r=64).base_model.model.layers[0].mlp["up"]
    layer.reset_lora_parameters("default", True)
    theirs = layer.lora_A["default"].weight.detach().numpy()
    kernel = {"kernel": np.zeros((6, 9), np.float32)}
    ours = lora_params(kernel, LoraConfig((".*",), rank=64), jax.random.key(0))
    for a in (theirs, np.asarray(ours["lora_a"])):
        assert 0.95 * 6**-0.5 < np.abs(a).max() <= 6**-0.5
        np.testing.assert_allclose(a.std(), 6**-0.5 / 3**0.5, rtol=0.1)
    assert not np.any(ours["lora_b"])
    assert not torch.any(layer.lora_B["default"].weight)


BERT = BertConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    attn_implementation="eager",
)
NAMES = {"attention.self.query": "query", "attention.output.dense": "output", "output.dense": "down"}


def bert_table(prefix=""):
    return Table(
        tuple(
            Rule(f"{prefix}encoder.layer.{{layer}}.{theirs}.weight", f"layers/{ours}/kernel", True)
            for theirs, ours in NAMES.items()
        ),
        ignored=(r"pooler\..*",),
    )


def bert_kernels(body):
    layers = body.encoder.layer
    found = {
        ours: [layer.get_submodule(theirs).weight.detach().numpy().T for layer in layers]
        for theirs, ours in NAMES.items()
    }
    return {"layers": {name: {"kernel": np.stack(kernels)} for name, kernels in found.items()}}


# PEFT asks transformers for a property that transformers has renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("head", [False, True], ids=["bare", "masked_lm"])
def test_a_transformers_model(head, tmp_path):
    torch.manual_seed(0)
    model = (BertForMaskedLM if head else BertModel)(BERT)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = peft.LoraConfig(
        r=2, lora_alpha=5, target_modules=r".*layer\.\d+.*(query|dense)", exclude_modules=r".*intermediate.*"
    )
    theirs = peft.get_peft_model(model, settings)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape))
    theirs.save_pretrained(tmp_path / "theirs")
    whole = theirs.merge_and_unload()
    expected = bert_kernels(whole.bert if head else whole)

    plain = fresh(head, weights)
    params = bert_kernels(plain.bert if head else plain)
    leaves, config = load_adapter(tmp_path / "theirs", bert_table(), params)
    jax.tree.map(near, merged(joined(params, leaves), config), expected)

    save_adapter(tmp_path / "ours", leaves, config, bert_table("bert." if head else ""))
    plain.load_adapter(str(tmp_path / "ours"))  # transformers' own reader
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        near(plain.eval()(ids)[0].numpy(), whole.eval()(ids)[0].numpy())


def near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def fresh(head, weights):
    model = (BertForMaskedLM if head else BertModel)(BERT)
    model.load_state_dict(weights)
    return model
