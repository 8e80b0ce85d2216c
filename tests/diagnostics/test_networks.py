import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import diagnostics

PARAMS = {"stem": {"kernel": jnp.array([3.0, 4.0])}, "head": {"kernel": jnp.array([[12.0]]), "bias": jnp.array([0.0])}}


def measure(name, params=PARAMS, features=None, initial=PARAMS):
    state = types.SimpleNamespace(params=params, stats={})
    return diagnostics.DIAGNOSTICS[name](state, {"features": features or {}, "initial": initial})


def effective_rank(features):
    return float(measure("effective_rank", features={"penultimate": jnp.asarray(features)})["effective_rank"])


def dormant(**features):
    return float(measure("dormant_fraction", features=features)["dormant_fraction"])


def test_weight_norm():
    found = measure("weight_norm")
    assert found == {"weight_norm": 13, "weight_norm/stem": 5, "weight_norm/head": 12}


def test_distance_to_init():
    moved = jax.tree.map(lambda a: a, PARAMS) | {"stem": {"kernel": jnp.array([3.0, 6.0])}}
    found = measure("distance_to_init", params=moved)
    assert found == {"distance_to_init": 2, "distance_to_init/stem": 2, "distance_to_init/head": 0}


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_effective_rank_of_equal_singular_values_is_their_number(rank):
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((10, 6)))
    assert effective_rank(5 * q[:, :rank] @ np.eye(rank, 6)) == pytest.approx(rank, rel=1e-4)


def test_effective_rank_is_the_exponential_of_the_entropy():
    features = np.random.default_rng(0).standard_normal((20, 7)) * np.logspace(0, -3, 7)
    sigma = np.linalg.svd(features, compute_uv=False)
    share = sigma / sigma.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    assert effective_rank(features) == pytest.approx(expected, rel=1e-4)
    assert effective_rank(1e-6 * features) == pytest.approx(expected, rel=1e-4)


def test_effective_rank_of_collapsed_features_is_that_of_what_is_left():
    """Three directions, and 61 that are 1e-5 as large: from the eigenvalues of the Gram matrix it would be 2.81."""
    rng, sigma = np.random.default_rng(0), np.array([3.0, 2.0, 1.0, *[1e-5] * 61])
    left, right = (np.linalg.qr(rng.standard_normal((rows, 64)))[0] for rows in (512, 64))
    share = sigma / sigma.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    assert effective_rank((left * sigma) @ right.T) == pytest.approx(expected, rel=1e-4)


def test_effective_rank_of_nothing_is_zero():
    assert effective_rank(np.zeros((4, 3))) == 0


def test_dormant_fraction_scores_units_within_their_layer():
    dense = jnp.array([[1.0, 0.0, 0.01, 0.2], [1.0, 0.0, 0.03, 0.6]])  # means 1, 0, 0.02, 0.4: threshold 0.025 * 0.355
    assert dormant(dense=dense) == pytest.approx(1 / 4)
    assert dormant(dense=dense, faint=1e-6 * dense) == pytest.approx(1 / 4)
    edge = jnp.array([[0.025, 1.975]])  # a score of exactly tau is dormant
    assert dormant(edge=edge) == pytest.approx(1 / 2)


def test_dormant_fraction_takes_channels_of_feature_maps_and_weighs_units_equally():
    maps = np.zeros((5, 3, 3, 2), np.float32)
    maps[0, 1, 1, 0] = 1.0  # active at a single position of a single image
    assert dormant(maps=jnp.asarray(maps)) == pytest.approx(1 / 2)
    assert dormant(maps=jnp.asarray(maps), dense=jnp.ones((5, 6))) == pytest.approx(1 / 8)


def test_dormant_fraction_of_a_dead_layer_and_of_no_layer():
    assert dormant(dead=jnp.zeros((2, 3))) == 1
    assert dormant(penultimate=jnp.zeros((2, 3))) == 0


def test_every_diagnostic_can_be_jitted_and_mapped_over_runs():
    features = {"maps": jnp.ones((2, 4, 3, 3, 2)), "penultimate": jax.random.normal(jax.random.key(0), (2, 4, 3))}
    runs = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), PARAMS)

    def one(params, features):
        batch = {"features": features, "initial": PARAMS}
        state = types.SimpleNamespace(params=params, stats={})
        return [diagnostic(state, batch) for diagnostic in diagnostics.DIAGNOSTICS.values()]

    for numbers in jax.jit(jax.vmap(one))(runs, features):
        for value in numbers.values():
            assert value.shape == (2,) and value.dtype == jnp.float32 and bool(jnp.isfinite(value).all())
