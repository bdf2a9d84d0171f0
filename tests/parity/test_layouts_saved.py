"""Every layout loaded, saved and loaded again, by us alone; and folders whose tensors are not the model's."""

import jax
import numpy as np
import pytest

from jaxret.errors import InputError
from jaxret.nn.convert.tensor_files import open_tensors, write_safetensors
from jaxret.runtime.layouts import load_pretrained, save_pretrained
from jaxret.runtime.mesh import device_mesh
from tests.parity.cases import RETRIEVERS, cases, names
from tests.parity.corpus import DOCUMENTS

HEADS = {"masked_lm": {"heads": ("lexical",)}}
BARE = ("transformers", "masked_lm")
ALL = cases(*RETRIEVERS)


@pytest.mark.parametrize("case", ALL, ids=names(ALL))
def test_a_saved_model_is_the_same_model(case, tmp_path):
    model, params = load_pretrained(case.folder, device_mesh(), **HEADS.get(case.layout, {}))
    for layout in ("auto",) if case.layout in BARE else ("auto", "jaxret"):
        again, same = load_pretrained(save_pretrained(tmp_path / layout, model, params, layout), device_mesh())
        assert (again.config, again.text) == (model.config, model.text)
        assert again.tokenizer.encode(DOCUMENTS) == model.tokenizer.encode(DOCUMENTS)
        assert jax.tree.structure(same) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, same, params)


# Where the weights are, and one tensor of each file, with our name of it.
FILES = {
    "bert": [("", "encoder.layer.1.output.dense.bias", "encoder/layers/mlp/down/bias[1]")],
    "st6_minilm": [
        ("", "encoder.layer.1.output.dense.bias", "encoder/layers/mlp/down/bias[1]"),
        ("2_Dense", "linear.weight", "dense/projection_0/kernel"),
    ],
    "st6_without_prompt": [("3_Dense", "linear.weight", "dense/projection_1/kernel")],
    "sparse6_bert": [("", "cls.predictions.transform.dense.weight", "lm_head/transform/kernel")],
    "mv6_modernbert": [("2_Dense", "residual.weight", "multi_vector/residual_1/kernel")],
    "colbert_bert": [("", "linear.weight", "multi_vector/projection_0/kernel")],
    "pylate_bert": [("1_Dense", "linear.weight", "multi_vector/projection_0/kernel")],
    "bge_m3": [
        ("", "encoder.layer.1.output.dense.bias", "encoder/layers/mlp/down/bias[1]"),
        ("sparse_linear", "weight", "lexical/weight/kernel"),
    ],
}
TENSORS = [(name, *where) for name, files in FILES.items() for where in files]


@pytest.mark.parametrize(("name", "inside", "theirs", "ours"), TENSORS)
def test_foreign_missing_and_misshapen_tensors_are_listed_together(copied, name, inside, theirs, ours):
    """One tensor renamed (ours lacks its own, theirs is unknown), another one a row too long."""
    folder = copied(name)
    place = folder / inside if (folder / inside).is_dir() else folder / f"{inside}.pt"
    tensors = {key: tensor.read() for key, tensor in open_tensors(place).items()}
    tensors["stray.tensor"] = tensors.pop(theirs)
    long = next((key for key in tensors if key != "stray.tensor"), None)  # some files have but one
    if long:
        tensors[long] = np.append(tensors[long], tensors[long][:1], axis=0)
    replaced(place, tensors)
    with pytest.raises(InputError) as caught:
        load_pretrained(folder, device_mesh())
    problem = caught.value.problem
    assert "1 unknown tensors: stray.tensor" in problem
    assert f"1 missing tensors: {theirs} for {ours}" in problem
    assert not long or f" shapes that differ: {long} is {list(tensors[long].shape)}, not" in problem


def replaced(place, tensors):
    """Writes tensors instead of those of a folder, or of one `.pt` file."""
    for old in [place] if place.is_file() else [*place.glob("*.safetensors"), *place.glob("*.bin")]:
        old.unlink()
    if place.suffix != ".pt":
        return write_safetensors(place, tensors.items())
    twin = place.with_suffix("")
    twin.mkdir()
    write_safetensors(twin, tensors.items())
    (twin / "model.safetensors").rename(place.with_suffix(".safetensors"))
