import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxret.errors import InputError
from jaxret.runtime.checkpoints import Checkpoints
from jaxret.runtime.mesh import device_mesh

REST = {"step": jnp.int32(3), "moments": {"kernel": jnp.full((4, 2), 1 / 3)}, "empty": {}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def opened(folder):
    managers = []

    def opened(**options):
        managers.append(Checkpoints(folder, **options))
        return managers[-1]

    yield opened
    for manager in managers:
        manager.close()


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def params(seed=0):
    random = np.random.default_rng(seed)
    tree = {
        "head": {"kernel": random.normal(size=(4, 2)), "bias": random.normal(size=2)},
        "scale": random.normal(size=3),
    }
    return jax.tree.map(jnp.float32, tree)


def assert_bit_equal(found, wanted):
    def check(a, b):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    jax.tree.map(check, found, wanted)


def test_what_is_saved_comes_back_to_the_bit(opened):
    opened().save(5, params(), REST, {"batches": 5, "note": "猫"})
    found = opened().restore(5, abstract(params()), abstract(REST))
    assert_bit_equal(found[:2], (params(), REST))
    assert found[2] == {"batches": 5, "note": "猫"}


def test_a_model_moves_to_another_mesh(opened, model, random_params):
    def placed(shape):
        return model.abstract_params(device_mesh(shape))

    whole = random_params(model.abstract_params())
    saved = jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), whole, placed((8, 1, 1)))
    opened().save(0, saved, REST, {})
    for shape in ((2, 2, 2), (8, 1, 1)):
        found, step = opened().restore_params(placed(shape))
        assert step == 0
        assert_bit_equal(found, whole)
        jax.tree.map(
            lambda x, s: x.sharding.is_equivalent_to(s.sharding, x.ndim) or pytest.fail(str(x)), found, placed(shape)
        )


def test_nothing_is_compiled_to_save_small_arrays(opened, caplog):
    """Orbax cuts an array with copies on several devices into slices for each to write, a program for every slice."""
    copies = jax.device_put(np.ones((8, 3), np.float32), NamedSharding(device_mesh(), PartitionSpec()))
    with jax.log_compiles():
        opened().save(0, {"x": copies}, REST, {})
    assert not [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]


def test_the_last_two_steps_and_step_zero_are_kept(opened):
    checkpoints = opened(keep=2)
    for step in (0, 2, 4, 6, 8):
        checkpoints.save(step, params(step), REST, {})
    assert checkpoints.steps() == opened(keep=2).steps() == [0, 6, 8]
    assert_bit_equal(opened().restore_params(abstract(params()), 0)[0], params(0))
    assert_bit_equal(opened().restore_params(abstract(params()))[0], params(8))


def test_all_steps_are_kept_if_so_wanted(opened):
    checkpoints = opened(keep=None)
    for step in range(4):
        checkpoints.save(step, params(), REST, {})
    assert checkpoints.steps() == [0, 1, 2, 3]


def test_no_checkpoint_is_an_input_error(opened, folder):
    with pytest.raises(InputError, match=rf"{folder}: holds no checkpoint"):
        opened().restore_params(abstract(params()))


def test_a_misfit_lists_the_names_of_both_sides(opened, folder):
    opened().save(1, params(), REST, {})
    other = params()
    other["head"] = {"kernel": jnp.ones((4, 3)), "gain": jnp.ones(2)}
    with pytest.raises(InputError) as caught:
        opened().restore_params(abstract(other))
    assert str(caught.value) == (
        f"{folder}/1: does not fit the model; only in the checkpoint: head/bias; only in the model: head/gain; "
        "of another shape: head/kernel (4, 2) in the checkpoint, (4, 3) in the model. "
        "Use the configuration that made the checkpoint, or a new workdir."
    )
    with pytest.raises(InputError, match=r"only in the checkpoint: moments/kernel"):
        opened().restore(1, abstract(params()), abstract({"step": REST["step"]}))


def truncated(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def removed(file):
    file.unlink()


@pytest.mark.parametrize("damaged", [truncated, removed])
@pytest.mark.parametrize(
    "pattern", ["params/manifest.ocdbt", "params/d/*", "params/_METADATA", "rest/d/*", "position/metadata"]
)
def test_a_damaged_file_is_an_input_error_that_names_the_step(opened, folder, pattern, damaged):
    """In a checkpoint from before there were checksums, too."""
    opened().save(2, params(), REST, {})
    (folder / "2" / "SHA256SUMS").unlink()
    files = list((folder / "2").glob(pattern))
    assert files
    for file in files:
        damaged(file)
    with pytest.raises(InputError, match=rf"^{folder}/2.*damaged.*Choose another step"):
        opened().restore(2, abstract(params()), abstract(REST))


def flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_whatever_is_damaged_is_named_and_the_step_before_is_used(opened, folder, caplog):
    for step in (1, 2):
        opened().save(step, params(step), REST, {"batches": step})
    step, aside = folder / "2", folder / "2.damaged"
    files = sorted(path.relative_to(step) for path in step.rglob("*") if path.is_file())
    assert {"position/metadata", "params/manifest.ocdbt", "rest/_METADATA", "SHA256SUMS"} <= set(map(str, files))
    for file in files:
        whole = (step / file).read_bytes()
        for damage in (truncated, flipped, removed) if whole else (removed,):
            damage(step / file)
            caplog.clear()
            checkpoints = opened()
            assert checkpoints.whole_step() == 1 and checkpoints.steps() == [1]
            assert f"{step / file}: damaged" in caplog.text
            aside.rename(step)
            (step / file).write_bytes(whole)
    assert opened().whole_step() == 2
    found = opened().restore(1, abstract(params()), abstract(REST))
    assert_bit_equal(found[:2], (params(1), REST))


def test_a_cut_file_without_its_checksums_is_found(opened, folder, caplog):
    for step in (1, 2):
        opened().save(step, params(step), REST, {"batches": step})
    truncated(folder / "2" / "rest" / "_METADATA")
    removed(folder / "2" / "SHA256SUMS")
    with pytest.raises(InputError, match=rf"^{folder}/2/SHA256SUMS: the checkpoint is damaged"):
        opened(read_only=True).restore_params(abstract(params()), 2)
    checkpoints = opened()
    assert checkpoints.whole_step() == 1 and f"{folder}/2/SHA256SUMS: damaged" in caplog.text


def test_a_run_begun_before_there_were_checksums_goes_on(opened, folder):
    for step in (1, 2, 3):
        opened().save(step, params(step), REST, {"batches": step})
    for step in (1, 2):
        removed(folder / str(step) / "SHA256SUMS")
    truncated(folder / "3" / "position" / "metadata")
    checkpoints = opened()
    assert checkpoints.whole_step() == 2 and checkpoints.position(2) == {"batches": 2}
    assert_bit_equal(opened().restore_params(abstract(params()), 1)[0], params(1))


def test_a_step_that_was_set_aside_is_written_again(opened, folder):
    for step in (1, 2):
        opened().save(step, params(step), REST, {"batches": step})
    flipped(folder / "2" / "position" / "metadata")
    checkpoints = opened()
    assert checkpoints.whole_step() == 1
    checkpoints.save(2, params(7), REST, {"batches": 2})
    assert opened().whole_step() == 2 and opened().position(2) == {"batches": 2}
    assert_bit_equal(opened().restore_params(abstract(params()))[0], params(7))


def test_no_step_is_none_and_no_whole_step_is_an_input_error(opened, folder):
    assert opened().whole_step() is None
    opened().save(1, params(), REST, {})
    truncated(folder / "1" / "params" / "_METADATA")
    with pytest.raises(InputError, match=rf"^{folder}: every checkpoint is damaged"):
        opened().whole_step()


def test_a_step_without_checksums_is_read(opened, folder):
    opened().save(1, params(), REST, {})
    (folder / "1" / "SHA256SUMS").unlink()
    assert opened().whole_step() == 1
    assert_bit_equal(opened().restore_params(abstract(params()))[0], params())


def test_what_is_saved_in_the_background_may_be_donated_at_once(opened):
    def steps(checkpoints, background):
        step = jax.jit(lambda x: x * 1.5 + 1, donate_argnums=0)
        values = jnp.arange(2_000_000, dtype=jnp.float32)
        for number in range(1, 4):
            values = step(values)
            checkpoints.save(number, {"kernel": values}, REST, {}, background=background)
            checkpoints.pinned.add(number)
            for _ in range(5):
                values = step(values)
        checkpoints.wait()

    steps(opened(), True)
    values = np.arange(2_000_000, dtype=np.float32)
    shapes = {"kernel": jax.ShapeDtypeStruct(values.shape, values.dtype)}
    for number in range(1, 4):
        values = np.float32(values * np.float32(1.5) + 1)
        found = opened(read_only=True).restore_params(shapes, number)[0]["kernel"]
        np.testing.assert_array_equal(found, values)
        for _ in range(5):
            values = np.float32(values * np.float32(1.5) + 1)


def test_pinned_steps_stay(opened):
    checkpoints = opened(keep=1)
    for step in range(6):
        checkpoints.pinned |= {2} if step == 2 else set()
        checkpoints.save(step, params(step), REST, {}, background=True)
    checkpoints.wait()
    assert checkpoints.steps() == opened().steps() == [0, 2, 5]
    checkpoints.pinned -= {2}
    checkpoints.save(6, params(), REST, {})
    assert opened().steps() == [0, 6]


def test_an_error_in_the_background_comes_out(opened, folder, monkeypatch):
    checkpoints = opened()
    checkpoints.save(1, params(), REST, {})

    def full(folder):
        raise OSError("no space left")

    monkeypatch.setattr("jaxret.runtime.checksums.seal", full)
    checkpoints.save(2, params(), REST, {}, background=True)
    with pytest.raises(OSError, match="no space left"):
        checkpoints.wait()
    assert opened().steps() == [1]


def test_a_truncated_file_of_weights_is_an_input_error(opened, folder):
    large = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(200, 100)), jnp.float32)}
    opened().save(2, large, REST, {})
    file = max((folder / "2" / "params").rglob("*"), key=lambda path: path.stat().st_size)
    assert file.stat().st_size > 50_000
    truncated(file)
    with pytest.raises(InputError, match=rf"^{file}: the checkpoint is damaged"):
        opened().restore_params(abstract(large))
    (folder / "2" / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match=rf"^{folder}/2/params/: the checkpoint is damaged"):
        opened().restore_params(abstract(large))


def test_a_half_written_step_is_no_step_and_is_cleared_by_the_next_training(opened, folder):
    opened().save(2, params(), REST, {})
    unfinished = folder / "4.orbax-checkpoint-tmp" / "params"
    unfinished.mkdir(parents=True)
    reader = opened(read_only=True)
    assert reader.steps() == [2]
    assert_bit_equal(reader.restore_params(abstract(params()))[0], params())
    reader.close()
    assert unfinished.exists(), "a reader must not touch what a training is writing"
    writer = opened()
    writer.save(4, params(4), REST, {})
    assert writer.steps() == [2, 4]
    assert sorted(path.name for path in folder.iterdir()) == ["2", "4"]


def test_a_reader_makes_no_folder(folder):
    with pytest.raises(InputError, match="holds no checkpoint"):
        Checkpoints(folder, read_only=True)
    assert not folder.exists()
