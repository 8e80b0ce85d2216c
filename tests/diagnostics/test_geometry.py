"""Distances and paths between networks, and their tangent kernel, in cases with a closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.diagnostics.geometry import barrier, cka, correlation, path, similarity
from plasticity_jax.diagnostics.kernel import kernel
from tests.support import subjects

RNG = np.random.default_rng(0)
PARAMS = {"a": jnp.asarray(RNG.normal(size=4), jnp.float32), "b": jnp.asarray(RNG.normal(size=3), jnp.float32)}
OTHER = {"a": jnp.asarray(RNG.normal(size=4), jnp.float32), "b": -2 * PARAMS["b"] + 1}
DATA = RNG.normal(size=(6, 7))
SAME = np.eye(7)
IMAGES, KERNEL = RNG.normal(size=(20, 5)), RNG.normal(size=(5, 3))


def subject(parent=True, hessian=SAME):
    return subjects.quadratic(hessian, DATA, PARAMS, initial=OTHER, parent=OTHER, has_parent=parent)


def test_correlation_with_first_and_former_weights():
    numbers = jax.jit(lambda: correlation(subject()))()
    whole = [np.concatenate([tree["a"], tree["b"]]) for tree in (PARAMS, OTHER)]
    for name in ("init", "parent"):
        assert float(numbers[f"correlation_to_{name}"]) == pytest.approx(np.corrcoef(*whole)[0, 1], rel=1e-4)
        assert float(numbers[f"correlation_to_{name}/b"]) == pytest.approx(-1, rel=1e-4)


def test_without_a_stage_before_there_is_nothing_to_compare_with():
    numbers = jax.jit(lambda: correlation(subject(False)) | path(subject(False)) | similarity(subject(False)))()
    assert {name for name, value in numbers.items() if not np.isnan(value)} == {
        f"correlation_to_init{end}" for end in ("", "/a", "/b")
    }


def test_the_loss_on_a_line_of_a_saddle():
    """The loss of a quadratic along a line is a parabola; its height above the chord is an eighth of its curvature."""
    hessian = -np.eye(7)
    numbers = jax.jit(lambda: path(subject(hessian=hessian)))()
    ends = [np.concatenate([tree["a"], tree["b"]]) for tree in (OTHER, PARAMS)]
    for i, share in ((0, 0.0), (3, 0.3), (10, 1.0)):
        here = (1 - share) * ends[0] + share * ends[1]
        expected = -0.5 * np.square(here - DATA).sum(1).mean()
        assert float(numbers[f"path_loss/{i}"]) == pytest.approx(expected, rel=1e-4)
    assert float(numbers["path_barrier"]) == pytest.approx(np.square(ends[1] - ends[0]).sum() / 8, rel=1e-3)
    assert float(barrier(jnp.array([2.0, 1.0, 0.0]))) == 0


def test_cka_sees_neither_rotation_nor_scale_nor_what_weighs_nothing():
    features = RNG.normal(size=(12, 2, 3))
    turned = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    same = 3 * features.reshape(12, 6) @ turned + 1
    assert float(cka(features, same, np.ones(12))) == pytest.approx(1, abs=1e-5)
    x, y = features.reshape(12, 6), RNG.normal(size=(12, 4))
    x, y = x - x.mean(0), y - y.mean(0)
    expected = np.square(x.T @ y).sum() / np.sqrt(np.square(x.T @ x).sum() * np.square(y.T @ y).sum())
    assert float(cka(x, y, np.ones(12))) == pytest.approx(expected, rel=1e-4)
    filled = [np.concatenate([each, 100 * RNG.normal(size=(3, each.shape[1]))]) for each in (x, y)]
    assert float(cka(*filled, np.array([1] * 12 + [0] * 3))) == pytest.approx(expected, rel=1e-4)


def test_the_tangent_kernel_of_linear_softmax_is_that_of_its_images():
    """The gradient of the sum of three logits over root 3 is x / root 3 for each of them, so K = X X^T."""
    given = subjects.softmax(IMAGES, np.zeros(20), KERNEL)
    moved = {"head": {"kernel": jnp.asarray(KERNEL + 0.5 * np.eye(5, 3), jnp.float32)}}
    whole = dataclasses.replace(given, following=lambda: dataclasses.replace(given, params=moved))
    numbers = {name: float(value) for name, value in jax.jit(lambda: kernel(whole))().items()}
    values = np.linalg.eigvalsh(IMAGES @ IMAGES.T)[-5:]
    share = values / values.sum()
    assert numbers["kernel_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)
    assert numbers["kernel_numerical_rank"] == 5
    assert numbers["kernel_condition"] == pytest.approx(1e6, rel=1e-3)
    before, after = (np.exp(IMAGES @ k) for k in (KERNEL, KERNEL + 0.5 * np.eye(5, 3)))
    before, after = (each / each.sum(1, keepdims=True) for each in (before, after))
    assert numbers["churn"] == pytest.approx(np.abs(after - before).sum(1).mean() / 2, rel=1e-4)
    assert numbers["churn_share"] == pytest.approx((before.argmax(1) != after.argmax(1)).mean(), abs=1e-6)
