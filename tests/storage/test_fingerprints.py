"""A user's code has the same fingerprint wherever it is, and another one if it would compute something else."""

import functools
import importlib
import importlib.util
import itertools
import subprocess
import sys

import jax
import pytest

from plasticity_jax.storage.fingerprints import fingerprint

CODE = """
import functools
import flax.linen as nn
import jax.numpy as jnp

SHARE = 0.5

def helper(x):
    return x * SHARE

def reset(state, fresh):
    return helper(state)

def make(factor):
    def reset(state, fresh, bias=1.0):
        return factor * state + bias
    return reset

class Block(nn.Module):
    width: int = 4
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(self.width)(x))

class Net(nn.Module):
    width: int = 8
    act: object = nn.relu
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(3)(Block(self.width)(images))

class Scale:
    def __init__(self, k):
        self.k = k
    def __call__(self, state, batch):
        return {"k": self.k * jnp.ones(())}
"""
numbers = itertools.count()


def loaded(folder, code=CODE):
    """The code, imported as the module `mine` from its own file."""
    path = folder / f"mine{next(numbers)}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("mine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


THINGS = {
    "reset": lambda m: m.reset,
    "closure": lambda m: m.make(2.0),
    "partial": lambda m: functools.partial(m.helper, 3),
    "jitted": lambda m: jax.jit(m.reset),
    "network": lambda m: m.Net(),
    "object": lambda m: m.Scale(2.0),
    "method": lambda m: m.Scale(2.0).__call__,
}


@pytest.mark.parametrize("name", THINGS)
def test_the_same_code_has_the_same_fingerprint(name, tmp_path):
    one, other = (fingerprint(THINGS[name](loaded(tmp_path))) for _ in range(2))
    assert one == other and len(one) == 16


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("reset", "helper(state)", "helper(fresh)"),
        ("reset", "x * SHARE", "x + SHARE"),
        ("reset", "SHARE = 0.5", "SHARE = 0.6"),
        ("jitted", "x * SHARE", "x + SHARE"),
        ("partial", "x * SHARE", "x + SHARE"),
        ("closure", "bias=1.0", "bias=2.0"),
        ("network", "nn.Dense(3)", "nn.Dense(4)"),
        ("network", "nn.relu(nn.Dense(self.width)(x))", "nn.gelu(nn.Dense(self.width)(x))"),
        ("network", "act: object = nn.relu", "act: object = nn.gelu"),
        ("object", "self.k * ", "self.k + "),
        ("method", "self.k * ", "self.k + "),
    ],
)
def test_other_code_has_another(name, old, new, tmp_path):
    assert CODE.count(old) == 1
    thing = THINGS[name]
    assert fingerprint(thing(loaded(tmp_path))) != fingerprint(thing(loaded(tmp_path, CODE.replace(old, new))))


def test_so_has_code_that_was_made_with_something_else(tmp_path):
    m = loaded(tmp_path)
    things = [m.make(2.0), m.make(3.0), m.Net(), m.Net(width=9), m.Net(act=jax.nn.gelu), m.Scale(2.0), m.Scale(3.0)]
    things += [functools.partial(m.helper, 3), functools.partial(m.helper, 4), m.helper, m.reset, len]
    assert len({fingerprint(thing) for thing in things}) == len(things)


def test_code_that_is_not_used_does_not_count(tmp_path):
    other = CODE.replace("class Scale", "class Unused:\n    pass\n\nclass Scale").replace("factor * state", "state")
    for name in ("reset", "network", "object"):
        assert fingerprint(THINGS[name](loaded(tmp_path))) == fingerprint(THINGS[name](loaded(tmp_path, other)))


def test_code_without_a_source_goes_by_its_name():
    names: dict = {"__name__": "prompt"}
    exec("def f(state, batch): return {}\ndef g(state, batch): return {}", names)
    assert fingerprint(names["f"]) == fingerprint(names["f"]) != fingerprint(names["g"])


@pytest.mark.slow
def test_it_is_the_same_in_another_process(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE)
    made = "f(mine.Net()), f(mine.make(2.0))"
    code = f"import mine; from plasticity_jax.storage.fingerprints import fingerprint as f; print({made})"
    call = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    other = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("mine")
    here = [fingerprint(mine.Net()), fingerprint(mine.make(2.0))]
    del sys.modules["mine"]
    assert other.split() == here
