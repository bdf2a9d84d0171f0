"""`jaxret encode` into a bucket, and `jaxret evaluate` from one."""

from collections import Counter

STORE = "gs://bucket/animals"


def shards(names):
    """How many objects of each shard are among these."""
    return Counter(name.split("/")[1] for name in names if "/shard-" in name)


def test_a_bucket_serves_as_a_disk_does(jaxret, bucket, trained, beir_of_animals, tmp_path):
    encode = ("encode", "--model", trained, "--data", beir_of_animals, "--output", STORE, "--shard_documents", 12)
    full = "animals/shard-00001/tokens/c/0/0"
    bucket.refused = lambda method, name: 403 if (method, name) == ("POST", full) else None
    code, _, err = jaxret(*encode)
    assert code == 2 and f"jaxret: gs://bucket/{full.removesuffix('/c/0/0')}: cannot be written: PERMISSION" in err
    common = ("evaluate", "--model", trained, "--data", beir_of_animals, "--split", "train", "--k", 32)
    evaluate = (*common, "--vectors", STORE, "--output", tmp_path / "bucket")
    code, _, err = jaxret(*evaluate)
    assert code == 2 and f"jaxret: {STORE}/vectors.json: no such file: the folder is no complete store" in err

    bucket.refused = lambda method, name: None
    sent = len(bucket.written())
    assert jaxret(*encode)[0] == 0
    assert shards(bucket.written()[sent:]) == {"shard-00001": 16, "shard-00002": 16}, "the first one is kept"
    whole = {name: data for name, (_, data) in bucket.objects.items()}

    for name in [name for name in bucket.objects if "/shard-00002/" in name]:
        del bucket.objects[name]
    code, _, err = jaxret(*evaluate)
    assert code == 2 and f"jaxret: {STORE}/shard-00002/shard.json: no such file" in err
    assert jaxret(*encode)[0] == 0
    assert {name: data for name, (_, data) in bucket.objects.items()} == whole

    for name, data in whole.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for command in (evaluate, (*common, "--vectors", tmp_path / "animals", "--output", tmp_path / "disk")):
        code, _, err = jaxret(*command)
        assert code == 0, err
    one, other = (
        {path.name: path.read_text() for path in tmp_path.glob(f"{name}/runs/*")} for name in ("bucket", "disk")
    )
    assert one == other and len(one) == 3
    index = ("index", "--model", trained, "--data", beir_of_animals, "--vectors", STORE)
    code, _, err = jaxret(*index, "--output", tmp_path / "index")
    assert code == 0, err
    assert {name: (tmp_path / name.replace("animals", "index/vectors", 1)).read_bytes() for name in whole} == whole
    assert jaxret("search", "a hen", "--index", tmp_path / "index", "--mode", "dense")[0] == 0
    code, _, err = jaxret(*index, "--output", "gs://bucket/index")
    assert code == 2 and "jaxret: --output: gs:/bucket/index: an index is a folder on a disk. Give" in err
    code, _, err = jaxret(*index, "--output", tmp_path / "other", "--dtype", "int8")
    assert code == 2 and "jaxret: --dtype: is of vectors that are encoded now. Leave it out, or --vectors." in err
    code, _, err = jaxret(*index, "--output", tmp_path / "other", "--step", 0, "--dry_run")
    assert code == 2 and f"jaxret: {STORE}/vectors.json: made with another model" in err
    assert not (tmp_path / "other").exists()
    for command, file in ((encode, "claim.json"), (evaluate, "vectors.json")):
        code, _, err = jaxret(*command, "--step", 0)
        assert code == 2 and f"jaxret: {STORE}/{file}: made with another model. Encode the corpus again" in err
