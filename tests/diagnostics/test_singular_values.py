"""Singular values by the method for TPUs, against those that matrices were built from, up to a common factor."""

import types

import jax
import numpy as np
import pytest

from plasticity_jax import diagnostics
from plasticity_jax.diagnostics.singular_values import singular_values

of = jax.jit(singular_values)
FACTORS = [np.linalg.qr(np.random.default_rng(rows).standard_normal((rows, 17)))[0] for rows in (30, 17)]


def made_of(sigma, scale=1.0):
    return np.float32(scale * (FACTORS[0] * sigma) @ FACTORS[1].T)


@pytest.mark.parametrize("scale", [1.0, 1e-25])
@pytest.mark.parametrize("sigma", [np.logspace(0, -5, 17), np.ones(17), np.r_[3, 2, 1, [1e-5] * 14]])
def test_they_are_those_that_the_matrix_was_made_of(sigma, scale):
    found = np.asarray(of(made_of(sigma, scale)), np.float64)
    assert found / found.sum() == pytest.approx(sigma / sigma.sum(), rel=1e-5, abs=3e-7)


def test_directions_that_are_missing_are_zeros():
    assert ((of(made_of(np.r_[3, 2, 1, [0] * 14])) > 1e-6) == (np.arange(17) < 3)).all()
    assert (of(np.zeros((30, 17), np.float32)) == 0).all()


def rank(features):
    batch = {"features": {"penultimate": features}}
    return diagnostics.DIAGNOSTICS["effective_rank"](types.SimpleNamespace(), batch)["effective_rank"]


def test_a_tpu_has_its_rank_by_them(monkeypatch):
    """XLA for TPUs takes minutes to compile jax's own; here with more features than images."""
    wide = made_of(np.logspace(0, -2, 17)).T
    expected = jax.jit(rank).trace(wide)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    other = jax.jit(lambda features: rank(features)).trace(wide)
    assert (" svd[" in str(expected.jaxpr), " svd[" in str(other.jaxpr)) == (True, False)
    assert other.lower().compile()(wide) == pytest.approx(float(expected.lower().compile()(wide)), rel=1e-5)
