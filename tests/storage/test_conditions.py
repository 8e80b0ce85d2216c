"""Random numbers and types are the lab's whatever jax's settings, and no study is resumed with others unnoticed."""

import contextlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plasticity_jax
from plasticity_jax.data import batches
from plasticity_jax.errors import LabError
from plasticity_jax.storage import conditions, environment, workdir
from tests.support import small

# switch -> a value that is not the lab's
OTHERWISE = {
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
}
REFUSED = {"jax_random_seed_offset": 3, "jax_high_dynamic_range_gumbel": True, "jax_disable_jit": True}
CHOICES = {"main": {"strategy": "map", "dtype": "float32"}}


@contextlib.contextmanager
def switched(**switches):
    """Pretends that the environment had set jax's switches."""
    before = {name: getattr(jax.config, name) for name in switches}
    try:
        for name, value in switches.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@jax.jit  # once for each setting of the switches
def drawn(key):
    images = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
    found = [jax.random.normal(key, (7,)), jax.random.permutation(key, 9), jax.random.bits(key, (3,))]
    return [*found, batches.augment(key, jnp.asarray(images)), jnp.arange(3) / 2 + np.float32(1)]


def draws():
    """Everything that a seed and jax's types decide, as bytes."""
    return [(str(each.dtype), np.asarray(each).tobytes()) for each in drawn(batches.key(3, "init"))]


pinned_draws = conditions.pinned()(draws)


def test_every_switch_is_tried():
    assert OTHERWISE.keys() == conditions.PINNED.keys() and REFUSED.keys() == conditions.REFUSED.keys()


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_pinned_switch_changes_no_bit(name):
    expected = draws()
    with switched(**{name: OTHERWISE[name]}):
        assert pinned_draws() == expected
        assert getattr(jax.config, name) == OTHERWISE[name]  # restored to the user's value
    with conditions.pinned():
        assert conditions.recorded()["random"] == {"implementation": "threefry2x32", "partitionable": True}


@pytest.mark.parametrize("name", ["jax_default_prng_impl", "jax_threefry_partitionable", "jax_enable_x64"])
def test_unpinned_it_would(name):
    expected = draws()
    with switched(**{name: OTHERWISE[name]}):
        assert draws() != expected


@pytest.mark.parametrize("name", REFUSED)
def test_a_switch_that_cannot_be_pinned_is_refused_in_one_line(name, tmp_path):
    with switched(**{name: REFUSED[name]}), pytest.raises(LabError, match=f"^{name} is .*; unset {name.upper()}"):
        small.run(small.config(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_jax_has_no_switch_of_random_numbers_or_types_that_is_forgotten():
    harmless = {
        "jax_debug_key_reuse",  # only checks usage
        "jax_enable_custom_prng",  # what `jax.random.PRNGKey` returns, which the lab does not call
        "jax_legacy_prng_key",  # likewise
        "jax_explicit_x64_dtypes",  # only messages about requested types
    }
    words = re.compile("prng|random|threefry|x64|gumbel|promotion|precision|dtype")
    switches = {name for name in jax.config.values if words.search(name)}
    covered = {*conditions.PINNED, *conditions.REFUSED, *conditions.COMPILER, conditions.PRECISION, *harmless}
    assert switches <= covered


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A study that trained with the defaults of all switches."""
    directory = tmp_path_factory.mktemp("begun")
    return directory, small.run(small.config(), directory)


def test_a_study_has_the_same_bits_with_all_switches(begun, tmp_path):
    with switched(**OTHERWISE):
        assert small.hashes(small.run(small.config(), tmp_path)) == small.hashes(begun[1])
        _, params, _ = plasticity_jax.load(tmp_path, "fresh", 0)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


def test_what_decides_the_bits_is_recorded(begun, monkeypatch):
    recorded = workdir.read_json(begun[0] / "environment.json")
    assert recorded["random"] == {"implementation": "threefry2x32", "partitionable": True}
    assert (recorded["x64"], recorded["matmul_precision"], recorded["own"]) == (False, "default", {})
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--a=1")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    with jax.default_matmul_precision("highest"):
        now = conditions.recorded()
    assert now["flags"]["LIBTPU_INIT_ARGS"] == "--a=1"
    assert now["matmul_precision"] == "highest, NVIDIA_TF32_OVERRIDE=0"
    assert json.loads(json.dumps(now)) == now


# Resuming.


def settled(directory, own=None):
    with conditions.pinned():
        return environment.settle(directory, small.TOY, CHOICES, own or {})


def changed(directory, **fields):
    """Rewrites the environment recorded in the directory."""
    path = directory / "environment.json"
    content = workdir.read_json(path)
    for key, value in fields.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    workdir.write_json(path, content)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"random": {"partitionable": False}}, r"random numbers \(partitionable False -> True\)"),
        ({"random": {"implementation": "rbg"}}, r"random numbers \(implementation rbg -> threefry2x32\)"),
        ({"x64": True}, r"64-bit types \(x64 True -> False\)"),
        ({"matmul_precision": "highest"}, r"precision of matrix products \(matmul_precision highest -> default\)"),
        ({"own": {"model": "0", "reset a": "1"}}, r"custom code \(model, reset a\)"),
        ({"x64": True, "own": {"diagnostic b": "2"}}, r"64-bit types .* and other custom code \(diagnostic b\)"),
    ],
)
def test_what_changes_the_meaning_is_refused(fields, what, tmp_path):
    settled(tmp_path)
    changed(tmp_path, **fields)
    before = (tmp_path / "environment.json").read_bytes()
    with pytest.raises(LabError, match=f"was begun with other {what}.*; .*use another workdir, or delete .*json") as no:
        settled(tmp_path)
    assert "\n" not in str(no.value) and (tmp_path / "environment.json").read_bytes() == before
    (tmp_path / "environment.json").unlink()  # as the line says
    settled(tmp_path)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"commit": "abc"}, "commit abc -> "),
        ({"packages": {"jax": "0.1"}}, f"jax 0.1 -> {jax.__version__}"),
        ({"xla_flags": "--none"}, "xla_flags --none -> "),
        ({"flags": {"LIBTPU_INIT_ARGS": "--a"}}, "LIBTPU_INIT_ARGS --a -> (none)"),
        ({"compiler": {"jax_softmax_custom_jvp": "yes"}}, "jax_softmax_custom_jvp yes -> "),
        ({"device_kind": "H100", "cpu_threads": 99}, "device_kind H100 -> cpu, cpu_threads 99 -> "),
        ({"python": "3.1"}, "python 3.1 -> "),
    ],
)
def test_what_changes_last_bits_is_noted(fields, note, tmp_path, capsys):
    settled(tmp_path)
    settled(tmp_path)
    assert capsys.readouterr().out == ""
    changed(tmp_path, **fields)
    settled(tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: results may differ in their last bits") and note in line


@pytest.mark.parametrize("missing", environment.NEW)
def test_directories_of_earlier_versions_go_on_with_a_note(missing, tmp_path, capsys):
    recorded = settled(tmp_path, {"model": "1"})
    workdir.write_json(tmp_path / "environment.json", {key: recorded[key] for key in recorded if key != missing})
    settled(tmp_path, {"model": "1"})
    assert f"without recording {missing}" in capsys.readouterr().out


def test_a_key_that_nobody_writes_is_damage(tmp_path):
    workdir.write_json(tmp_path / "environment.json", settled(tmp_path) | {"x65": False})
    with pytest.raises(LabError, match="is damaged"):
        settled(tmp_path)


@pytest.mark.slow
def test_a_study_names_the_precision_of_its_products(begun, tmp_path):
    """Its programs are compiled with it, it is recorded, and the study is not resumed with another one."""
    with conditions.pinned("highest"), conditions.pinned():
        text = jax.jit(lambda x: x @ x).lower(np.ones((2, 2), np.float32)).as_text()
    assert "HIGHEST" in text and "HIGHEST" not in jax.jit(lambda x: x @ x).lower(np.ones((2, 2), np.float32)).as_text()
    wanted = small.single(epochs=1.0)
    wanted.matmul_precision = "highest"
    small.run(wanted, tmp_path)
    assert environment.read(tmp_path)["matmul_precision"] == "highest"
    assert workdir.read_json(tmp_path / "config.json")["matmul_precision"] == "highest"
    wanted.matmul_precision = "high"
    with pytest.raises(LabError, match="belongs to another config"):
        small.run(wanted, tmp_path)


def test_another_precision_of_products_does_not_go_on_unnoticed(begun):
    with jax.default_matmul_precision("highest"), pytest.raises(LabError, match="precision of matrix products"):
        small.run(small.config(), begun[0])
