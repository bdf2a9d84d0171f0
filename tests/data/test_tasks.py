import numpy as np
import pytest

from jaxret.data.tasks import SPLIT, GroupFile, Source, mixture
from jaxret.data.tensorflow_cpu import seqio
from jaxret.data.text import TextConfig
from jaxret.errors import InputError
from tests.data.conftest import HEADER

TEXT = TextConfig(query_max_len=8, passage_max_len=16)


def test_mixture_in_seqio_itself(beir_folder, vocabulary, tmp_path):
    """Any seqio pipeline can read it, not only training_batches."""
    sources = [Source(beir_folder("a"), rate=3.0), Source(beir_folder("b", test=[HEADER, "q1\td3\t1"]), "test", 1.0)]
    mixed = mixture(sources, vocabulary, TEXT, 1, tmp_path / "cache")
    assert [mixed.get_rate(task) for task in mixed.tasks] == [3.0, 1.0]
    assert mixed.num_input_examples(SPLIT) == 3
    shapes = {"query": (8,), "passage": (1, 16), "passage_key": (1,), "positive_keys": (1,), "language": ()}
    examples = list(mixed.get_dataset(None, SPLIT, shuffle=True, seed=0).take(40).as_numpy_iterator())
    for example in examples:
        assert {name: (value.shape, value.dtype) for name, value in example.items()} == {
            name: (shape, np.int32) for name, shape in shapes.items()
        }
    assert len({int(example["passage_key"][0]) for example in examples}) == 3


def test_seqio_shards(beir_folder, vocabulary, tmp_path):
    task = mixture([Source(beir_folder())], vocabulary, TEXT, 1, tmp_path / "cache").tasks[0]
    keys = [
        [
            int(e["passage_key"][0])
            for e in task.get_dataset(split=SPLIT, shuffle=False, shard_info=shard).as_numpy_iterator()
        ]
        for shard in (None, seqio.ShardInfo(0, 2), seqio.ShardInfo(1, 2))
    ]
    assert len(set(keys[0])) == 2 and keys[1] + keys[2] == keys[0]


def test_names_tell_content_and_can_be_made_again(beir_folder, vocabulary, tmp_path):
    def name(text=TEXT, split="train", **files):
        path = beir_folder("Set-1 日本", test=[HEADER, "q1\td3\t1"], **files)
        return mixture([Source(path, split)], vocabulary, text, 1, tmp_path / "cache").name

    (tmp_path / "groups.jsonl").write_text('{"query": "q", "pos": ["x"], "neg": []}\n')
    names = [name(), name(TextConfig()), name(split="test"), name(train=[HEADER, "q1\td1\t1"])]
    names.append(mixture([GroupFile(tmp_path / "groups.jsonl")], vocabulary, TEXT, 1, tmp_path / "cache").name)
    assert name() == names[0] and len(set(names)) == 5
    assert all(each.startswith("Set_1") for each in names[:4]) and names[4].startswith("groups_jsonl")
    assert not set(names) & set(seqio.TaskRegistry.names()), "the global registry is left alone"


def test_errors(beir_folder, vocabulary, tmp_path):
    path = beir_folder(negatives=[HEADER, "q1\td3\t0"])
    (tmp_path / "bad.jsonl").write_text('{"query": "q", "pos": ["x"], "neg": []}\n{\n')

    def make(sources, group=1):
        return mixture(sources, vocabulary, TEXT, group, tmp_path / "cache")

    cases = [
        (lambda: make([]), "sources: nothing to train on"),
        (lambda: make([Source(path), Source(path)]), "the same queries twice"),
        (lambda: make([Source(path, "dev")]), "no split 'dev'. Splits here: train"),
        (lambda: make([Source(path)], 0), "train_group_size: 0 leaves no room"),
        (
            lambda: make([Source(path)], 2),
            r"negatives\.tsv: query 'q2' has no negatives.*missing_negatives.*train_group_size to 1",
        ),
        (lambda: Source(path, rate=0.0), "rate 0.0 is not positive"),
        (lambda: Source(path, rate=float("nan")), "rate nan is not positive"),
        (lambda: Source(path, language=-1), "language -1 is out of range"),
        (lambda: GroupFile("x", rate=-1.0), "source x: rate -1.0 is not positive"),
        (lambda: make([Source(tmp_path / "nowhere")]), "no such folder"),
        (lambda: make([GroupFile(tmp_path / "nowhere")]), "no such file"),
        (lambda: make([GroupFile(tmp_path / "bad.jsonl")]), r"bad.jsonl:2: broken JSON"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
    assert len(make([Source(path)], 1).tasks) == 1
