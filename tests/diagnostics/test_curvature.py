"""Curvature and flatness of losses with a given Hessian or one in closed form."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.diagnostics.curvature import curvature, spectrum
from plasticity_jax.diagnostics.fisher import fisher
from plasticity_jax.diagnostics.flatness import flatness
from plasticity_jax.diagnostics.subspace import overlap, subspace
from plasticity_jax.models import products, resnet
from plasticity_jax.models.parameters import paths
from plasticity_jax.training.gradient import forward
from tests.support import subjects

RNG = np.random.default_rng(0)
ROTATION = np.linalg.qr(RNG.normal(size=(12, 12)))[0]
VALUES = np.array([-1.0, 0.0, 0.001, 0.002, 0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 6.0, 10.0])
HESSIAN = ROTATION @ np.diag(VALUES) @ ROTATION.T
PARAMS = {"a": {"kernel": jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32)}, "b": jnp.ones(4)}
DATA = RNG.normal(size=(6, 12))
FLAT = np.concatenate([np.ravel(PARAMS["a"]["kernel"]), np.ones(4)])

IMAGES = RNG.normal(size=(40, 5))
LABELS = RNG.integers(0, 3, 40)
KERNEL = RNG.normal(size=(5, 3))


@functools.cache
def quadratic(instrument):
    return jax.jit(lambda *given: instrument(subjects.quadratic(*given)))


def measured(instrument, hessian, data=DATA, params=PARAMS):
    """An instrument's values on a quadratic loss; equal shapes, so that each instrument is compiled once."""
    return {name: float(value) for name, value in quadratic(instrument)(hessian, data, params).items()}


def softmax_hessian():
    """The mean over images of (x x^T) times (diag(p) - p p^T), in the order of a flattened kernel [5, 3]."""
    logits = IMAGES @ KERNEL
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    inner = shares[:, :, None] * np.eye(3) - shares[:, :, None] * shares[:, None]
    return np.einsum("na,nb,ncd->acbd", IMAGES, IMAGES, inner).reshape(15, 15) / len(IMAGES), shares


def test_eigenvalues_trace_and_rank_of_a_given_hessian():
    numbers = measured(curvature, HESSIAN)
    for name in ("hessian", "gauss_newton"):  # equal, as the logits are linear in the weights
        top = [numbers[f"{name}_eigenvalue/{i + 1}"] for i in range(10)]
        np.testing.assert_allclose(top, VALUES[::-1][:10], atol=2e-5)
        assert numbers[f"{name}_smallest"] == pytest.approx(-1, abs=2e-5)
    norm = sum(np.square(leaf).sum() for leaf in jax.tree.leaves(PARAMS))
    assert numbers["relative_sharpness"] == pytest.approx(10 * norm, rel=1e-5)
    assert numbers["hessian_trace"] == pytest.approx(VALUES.sum(), abs=1e-3)  # the Lanczos steps span the whole space


def test_a_trace_is_exact_where_the_steps_reach_and_an_estimate_beside_it():
    values = np.concatenate([np.linspace(0.5, 1.5, 55), [20, 30, 40, 50, 60]])
    rotation = np.linalg.qr(RNG.normal(size=(60, 60)))[0]
    hessian = (rotation * values) @ rotation.T
    subject = subjects.quadratic(hessian, np.zeros((2, 60)), {"w": jnp.ones(60)})
    numbers = jax.jit(lambda: curvature(subject))()
    # Two random vectors alone would be wrong by about a third of the 200 that the outliers add up to.
    assert float(numbers["hessian_trace"]) == pytest.approx(values.sum(), rel=0.04)
    assert float(numbers["hessian_eigenvalue/5"]) == pytest.approx(20, rel=1e-3)


def test_of_a_diagonal_hessian_trace_and_rank_are_exact():
    numbers = measured(curvature, np.diag(VALUES + 2))
    assert numbers["hessian_trace"] == pytest.approx((VALUES + 2).sum(), rel=1e-5)
    numbers = measured(curvature, np.diag([0.01] * 7 + [1.5, 2, 3, 4, 5]))
    assert numbers["hessian_rank"] == pytest.approx(5, rel=1e-4)


def test_linear_softmax_has_its_closed_form():
    hessian, shares = softmax_hessian()
    numbers = jax.jit(lambda: curvature(subjects.softmax(IMAGES, LABELS, KERNEL)))()
    top = [numbers[f"gauss_newton_eigenvalue/{i + 1}"] for i in range(10)]
    np.testing.assert_allclose(top, np.linalg.eigvalsh(hessian)[::-1][:10], atol=1e-5)
    # tr F = mean |x|^2 (1 - |p|^2); the labels are drawn, so this is for many draws.
    true = (np.square(IMAGES).sum(1) * (1 - np.square(shares).sum(1))).mean()
    assert true == pytest.approx(np.trace(hessian))
    keys = jax.random.split(jax.random.key(1), 200)
    draws = jax.jit(jax.vmap(lambda key: fisher(subjects.softmax(IMAGES, LABELS, KERNEL, key=key))["fisher_trace"]))
    values = np.asarray(draws(keys), np.float64)
    assert abs(values.mean() - true) < 3 * values.std() / np.sqrt(200) < 0.1 * true


def test_the_hessian_of_a_residual_network_is_that_of_pytorch():
    """Its product with a random vector in eval mode equals PyTorch's double backward in float64."""
    with np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "resnet_torch.npz") as file:
        stored = {key.removeprefix("bottleneck/"): file[key] for key in file.files if key.startswith("bottleneck/")}
    net = resnet.ResNet(5, (2, 1), 2, "cifar", "batch", jnp.float32, block="bottleneck")
    like = jax.eval_shape(lambda: net.init(jax.random.key(0), stored["images"], False))

    def fill(tree, kind):
        return jax.tree.unflatten(jax.tree.structure(tree), [stored[f"{kind}/{name}"] for name in paths(tree)])

    images = jnp.asarray(stored["images"])
    params, vector = fill(like["params"], "params"), fill(like["params"], "vector")
    stats = fill(like["batch_stats"], "stats")

    def logits(params, part):
        with products.plain():
            return forward(net, params, stats, images[part.index], train=False)[0]

    subject = subjects.classifier(logits, params, stored["labels"])

    product = jax.jit(subject.hessian)(params, vector)
    for name, leaf in paths(product).items():
        true = stored[f"product/{name}"]
        np.testing.assert_allclose(leaf, true, rtol=0, atol=1e-4 * np.abs(true).max(), err_msg=name)


def test_the_spectrum_has_the_moments_of_the_matrix():
    """Exactly for a diagonal matrix, whatever the random signs."""
    numbers = measured(spectrum, np.diag(VALUES))
    nodes = np.array([numbers[f"hessian_node/{j}"] for j in range(24)])
    weights = np.array([numbers[f"hessian_weight/{j}"] for j in range(24)])
    assert weights.sum() == pytest.approx(1, rel=1e-5)
    for power in (1, 2, 3):
        assert (weights * nodes**power).sum() == pytest.approx((VALUES**power).mean(), rel=1e-4)


def test_the_space_of_the_largest_eigenvalues():
    def go(params, hessian, memory):
        return subspace.measure(subjects.quadratic(hessian, DATA, params, memory=memory))

    go = jax.jit(go)
    nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan), subspace.start(PARAMS, None))
    numbers, memory = go(PARAMS, HESSIAN, nothing)
    slope = HESSIAN @ (FLAT - DATA.mean(0))
    inside = np.square(ROTATION[:, 2:].T @ slope).sum() / np.square(slope).sum()
    assert float(numbers["gradient_in_top"]) == pytest.approx(inside, rel=1e-3)
    assert np.isnan(numbers["top_overlap_first"]) and np.isnan(numbers["top_overlap_last"])
    # The axis of the largest eigenvalue becomes that of the smallest one.
    turned = HESSIAN - 12 * np.outer(ROTATION[:, -1], ROTATION[:, -1])
    numbers, memory = go(PARAMS, turned, memory)
    assert float(numbers["top_overlap_first"]) == pytest.approx(0.9, abs=2e-3)
    numbers, _ = go(PARAMS, HESSIAN, memory)
    assert float(numbers["top_overlap_first"]) == pytest.approx(1, abs=2e-3)
    assert float(numbers["top_overlap_last"]) == pytest.approx(0.9, abs=2e-3)


def test_overlap_of_spaces():
    basis = {"w": jnp.eye(4)[:2].reshape(2, 2, 2)}
    assert overlap(basis, basis) == 1
    assert overlap(basis, {"w": jnp.eye(4)[1:3].reshape(2, 2, 2)}) == 0.5
    assert overlap(basis, {"w": jnp.eye(4)[2:].reshape(2, 2, 2)}) == 0


def test_adaptive_sharpness_at_a_minimum_is_that_of_the_scaled_hessian():
    """The maximum of e^T A e / 2 for |e / w| = 0.5: the largest eigenvalue of W A W times 0.5^2 / 2."""
    hessian = np.diag([0.1] * 11 + [10.0])
    found = measured(flatness, hessian, np.tile(FLAT, (6, 1)))
    assert found["adaptive_sharpness"] == pytest.approx(0.5**2 / 2 * 10, rel=1e-4)


def test_adaptive_sharpness_does_not_see_the_scale_of_weights():
    hessian = np.diag(VALUES + 2)
    twice = jax.tree.map(lambda leaf: 2 * leaf, PARAMS)
    one, other = (
        measured(flatness, matrix, np.tile(data, (6, 1)), params)
        for matrix, data, params in ((hessian, FLAT + 1, PARAMS), (hessian / 4, 2 * FLAT + 2, twice))
    )
    assert other == pytest.approx(one, rel=1e-4)


def test_random_directions_have_the_norms_of_the_filters():
    """An isotropic quadratic rises by half its curvature times the squared length."""
    found = measured(flatness, 3 * np.eye(12), np.tile(FLAT, (6, 1)))
    assert found["filter_rise"] == pytest.approx(0.1**2 / 2 * 3 * np.square(PARAMS["a"]["kernel"]).sum(), rel=1e-4)
