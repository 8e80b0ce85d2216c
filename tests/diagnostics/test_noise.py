"""The measured noise of gradients is the noise that their examples have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.diagnostics.noise import noise
from tests.support import subjects

RNG = np.random.default_rng(0)
PARAMS = {"a": jnp.array([0.5, -1.0]), "b": jnp.array([2.0])}
HESSIAN = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.7]])
DATA = RNG.normal(size=(12, 3))


def measured(subject):
    return {name: float(value) for name, value in jax.jit(lambda: noise(subject))().items()}


def gradients(data=DATA):
    return (np.concatenate([PARAMS["a"], PARAMS["b"]]) - data) @ HESSIAN


def test_it_is_the_covariance_of_the_gradients_of_examples_by_module_too():
    numbers = measured(subjects.quadratic(HESSIAN, DATA, PARAMS, rate=0.1, batch_size=4))
    by_example = gradients()
    for end, columns in (("", slice(0, 3)), ("/a", slice(0, 2)), ("/b", slice(2, 3))):
        part = by_example[:, columns]
        trace = np.var(part, axis=0, ddof=1).sum()
        square = np.square(part.mean(0)).sum() - trace / len(part)
        assert numbers[f"noise_trace{end}"] == pytest.approx(trace, rel=1e-5)
        assert numbers[f"gradient_square{end}"] == pytest.approx(square, rel=1e-4)
        assert numbers[f"noise_scale{end}"] == pytest.approx(trace / square, rel=1e-4)
    assert numbers["noise_of_update"] == pytest.approx(0.1 * numbers["noise_trace"] / 4, rel=1e-6)
    share = numbers["gradient_square"] / (numbers["gradient_square"] + numbers["noise_trace"] / 4)
    assert numbers["readiness"] == pytest.approx(share, rel=1e-6)
    directions = by_example / np.linalg.norm(by_example, axis=1, keepdims=True)
    cosines = (directions @ directions.T)[~np.eye(len(DATA), dtype=bool)]
    assert numbers["gradient_cosine"] == pytest.approx(cosines.mean(), abs=1e-5)
    assert not [name for name in numbers if name.startswith("preconditioned")]


def test_what_fills_a_part_up_counts_for_nothing():
    part = subjects.probe(12, weight=[1] * 9 + [0] * 3, old=[1] * 5 + [0] * 7)
    less = subjects.probe(9, old=[1] * 5 + [0] * 4)
    whole, filled = (measured(subjects.quadratic(HESSIAN, DATA, PARAMS, each, batch_size=2)) for each in (less, part))
    assert filled == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in whole.items()}


def test_the_gradients_of_old_and_new_images():
    old = np.arange(12) % 3 == 0
    numbers = measured(subjects.quadratic(HESSIAN, DATA, PARAMS, subjects.probe(12, old=old)))
    norms = [np.linalg.norm(gradients()[chosen].mean(0)) for chosen in (old, ~old)]
    assert numbers["old_gradient_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert numbers["new_gradient_norm"] == pytest.approx(norms[1], rel=1e-5)
    assert numbers["gradient_norm_ratio"] == pytest.approx(norms[0] / norms[1], rel=1e-5)


def test_without_old_images_there_is_no_norm_of_them():
    assert np.isnan(measured(subjects.quadratic(HESSIAN, DATA, PARAMS))["gradient_norm_ratio"])


def test_what_an_optimiser_divides_by():
    squares = {}

    def scales(square):
        squares.update(square)
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, 2.0), square)

    subject = subjects.quadratic(HESSIAN, DATA, PARAMS, scales=scales, rate=0.1, batch_size=4)
    numbers, square = jax.jit(lambda: (noise(subject), dict(squares)))()
    by_example = gradients()
    expected = np.square(by_example.mean(0)) + np.var(by_example, axis=0, ddof=1) * (1 / 4 - 1 / 12)
    np.testing.assert_allclose(np.concatenate([square["a"], square["b"]]), expected, rtol=1e-4)
    assert float(numbers["preconditioned_noise_trace"]) == pytest.approx(float(numbers["noise_trace"]) / 4, rel=1e-5)
    assert float(numbers["preconditioned_noise_scale"]) == pytest.approx(float(numbers["noise_scale"]), rel=1e-4)
    update = 0.1 * float(numbers["noise_trace"]) / 4 / 4
    assert float(numbers["preconditioned_noise_of_update"]) == pytest.approx(update, rel=1e-5)


def test_estimates_of_a_gaussian_are_unbiased():
    """Over 1,000 draws of 8 examples each, the means are within three standard errors of the true values."""
    mean, scale = np.array([0.3, -0.2, 0.1]), np.array([1.0, 0.5, 2.0])
    draws = RNG.normal(size=(1000, 8, 3)) * scale - mean  # draws of x; the gradients at w = 0 are -x
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    numbers = jax.jit(jax.vmap(lambda data: noise(subjects.quadratic(np.eye(3), data, zeros))))(draws)
    for name, true in (("noise_trace", np.square(scale).sum()), ("gradient_square", np.square(mean).sum())):
        values = np.asarray(numbers[name], np.float64)
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - true) < 3 * error
        assert error < 0.2 * values.std()
