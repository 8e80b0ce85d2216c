import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.errors import ConfigError
from plasticity_jax.models import parameters

TREE = {
    "stem": {"conv": {"kernel": jnp.ones((2, 2))}},
    "module2": {"block0": {"conv1": {"kernel": jnp.full((3,), 2.0)}}, "block1": {"conv1": {"kernel": jnp.zeros(4)}}},
    "head": {"kernel": jnp.arange(3.0), "bias": jnp.ones(())},
}


def selected(patterns):
    return {name for name, chosen in parameters.paths(parameters.select(TREE, patterns)).items() if chosen}


def test_paths_name_every_leaf_in_the_order_of_the_tree():
    named = parameters.paths(TREE)
    assert set(named) == {
        "stem/conv/kernel",
        "module2/block0/conv1/kernel",
        "module2/block1/conv1/kernel",
        "head/kernel",
        "head/bias",
    }
    for leaf, expected in zip(named.values(), jax.tree.leaves(TREE), strict=True):
        assert leaf is expected
    assert list(parameters.paths([{"a": 1}, (2, 3)])) == ["0/a", "1/0", "1/1"]


@pytest.mark.parametrize(
    "patterns, names",
    [
        ((), set()),
        (("all",), set(parameters.paths(TREE))),
        (("head",), {"head/kernel", "head/bias"}),
        (("head/bias",), {"head/bias"}),
        (("module2/block0", "stem"), {"module2/block0/conv1/kernel", "stem/conv/kernel"}),
    ],
)
def test_select(patterns, names):
    assert selected(patterns) == names
    assert jax.tree.structure(parameters.select(TREE, patterns)) == jax.tree.structure(TREE)


def test_select_all_of_nothing_is_nothing():
    assert parameters.select({}, ["all"]) == {}


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("module", "'module' names no parameter; did you mean one of ['module2'"),
        ("modul2/block0", "did you mean one of ['module2/block0'"),
        ("module2/", "did you mean one of ['module2'"),
        ("layer9zz", "choose one of ['all', 'head', 'module2', 'stem'] or a path below them"),
    ],
)
def test_a_pattern_without_a_match_is_an_error_that_names_the_nearest(pattern, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parameters.select(TREE, ["head", pattern])


def test_sha256_tells_names_types_shapes_and_bits_apart():
    tree = {"a": np.float32([1, 2]), "b": {"c": np.int32(3)}}
    same = {"b": {"c": jnp.int32(3)}, "a": jnp.array([1.0, 2.0])}
    assert parameters.sha256(tree) == parameters.sha256(same)
    others = [
        tree | {"a": np.float32([1, 2 + 3e-7])},
        tree | {"a": np.float32([[1, 2]])},
        tree | {"a": np.float32([1, 2]).view(np.int32)},
        tree | {"a": np.float32([2, 1])},
        {"a": tree["a"], "b": {"d": np.int32(3)}},
    ]
    assert len({parameters.sha256(t) for t in [tree, *others]}) == 6


def test_sha256_is_the_same_on_every_machine():
    digest = parameters.sha256({"a": np.float32([1, 2]), "b": np.int32(3)})
    assert digest == "881f4b75859ce780af1a3cd7fc8f526539deb61dbaf04a0d452e5249f9e312e1"


def test_crc32():
    assert parameters.crc32(np.frombuffer(b"123456789", np.uint8)) == 0xCBF43926  # the check value of CRC-32


def test_norm():
    assert parameters.norm(TREE) == pytest.approx(np.sqrt(4 + 12 + 0 + 5 + 1))
    assert parameters.norm({}) == 0
    assert jax.jit(parameters.norm)({"a": jnp.bfloat16(3), "b": jnp.float32(4)}) == 5
