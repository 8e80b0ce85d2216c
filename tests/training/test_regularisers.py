"""Each regulariser against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.training.remedies.interface import Begun, Network, Seen
from plasticity_jax.training.remedies.regularisers import HEADS, REGULARISERS
from tests.support import treated
from tests.support.tiny import MLP, RESNET

RNG = np.random.default_rng(0)
PARAMS = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), treated.drawn(MLP)[0])
FIRST = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), PARAMS)
IMAGES = RNG.normal(size=(3, 2)).astype(np.float32)


def seen(params, memory=(), **given):
    fields = dict(stats={}, images=IMAGES, labels=(), logits=(), features={}, reference=(), time=0.0, forward=None)
    return Seen(params=params, memory=memory, **fields | given)


def begin(name, params=PARAMS):
    """The initial memory of a remedy."""
    begun = Begun(FIRST, (FIRST, {}), jax.random.key(0), None)
    return REGULARISERS[name].start(Network(params, {}, (), {}), begun)


def linear(params, stats, images, train):
    """A network whose features are the images times the first rows of the head."""
    features = images @ params["head"]["kernel"][: images.shape[1]]
    return features, {"penultimate": features}


def matrices(params):
    return [
        np.asarray(leaf, np.float64).reshape(-1, leaf.shape[-1]) for leaf in jax.tree.leaves(params) if leaf.ndim > 1
    ]


def test_l2_init_pulls_by_two_strengths_times_the_distance():
    slope = jax.jit(jax.grad(lambda p: REGULARISERS["l2_init"].act(seen(p, begin("l2_init")), strength=0.3)))(PARAMS)
    assert len(jax.tree.leaves(slope)) == 4
    for leaf, theta, theta_0 in zip(*map(jax.tree.leaves, (slope, PARAMS, FIRST)), strict=True):
        np.testing.assert_allclose(leaf, 2 * 0.3 * (theta - theta_0), rtol=1e-5)


def test_spectral_is_the_distance_of_squared_singular_values_from_one():
    """After power iteration has converged; its gradient is 4 (s^2 - 1) s u v^T."""
    remedy, memory = REGULARISERS["spectral"], begin("spectral")
    turn = jax.jit(lambda memory: remedy.watch(memory, Network(PARAMS, {}, (), {}), None, {}))
    for _ in range(200):
        memory = turn(memory)
    singular = [np.linalg.svd(matrix, compute_uv=False)[0] for matrix in matrices(PARAMS)]
    biases = [np.sum(np.square(PARAMS[name]["bias"])) ** 2 for name in ("layer1", "head")]
    penalty, slope = jax.jit(jax.value_and_grad(lambda p: remedy.act(seen(p, memory), strength=0.5)))(PARAMS)
    np.testing.assert_allclose(penalty, 0.5 * (sum((s**2 - 1) ** 2 for s in singular) + sum(biases)), rtol=1e-4)
    u, s, vt = np.linalg.svd(PARAMS["layer1"]["kernel"], full_matrices=False)
    wanted = 0.5 * 4 * (s[0] ** 2 - 1) * s[0] * np.outer(u[:, 0], vt[0])
    np.testing.assert_allclose(slope["layer1"]["kernel"], wanted, rtol=1e-2, atol=1e-3 * np.abs(wanted).max())


def test_parseval_vanishes_for_orthogonal_weights_only():
    network, _ = treated.drawn(RESNET)
    kernels = [m for name in network if name != "head" for m in matrices(network[name])]
    grams = [m @ m.T if m.shape[0] < m.shape[1] else m.T @ m for m in kernels]
    spread = sum(np.sum((gram - 2 * np.eye(len(gram))) ** 2) for gram in grams)
    parseval = jax.jit(lambda params, strength: REGULARISERS["parseval"](seen(params), strength=strength, scale=2.0))
    np.testing.assert_allclose(parseval(network, 0.1), 0.1 * spread, rtol=1e-5)
    for shape in ((5, 3), (3, 5)):
        q = np.linalg.qr(RNG.normal(size=(5, 5)))[0][: shape[0], : shape[1]]
        tall = {"layer1": {"kernel": np.float32(np.sqrt(2) * q)}, "head": PARAMS["head"]}
        assert parseval(tall, 1.0) < 1e-9


def test_feature_norm_is_the_mean_over_examples():
    features = {"layer1": jnp.float32([[1, 2], [0, 0], [0, 1]]), "penultimate": jnp.ones((3, 2))}
    found = REGULARISERS["feature_norm"](seen(PARAMS, features=features), strength=0.5)
    np.testing.assert_allclose(found, 0.5 * (1 + 4 + 1) / 3)


def test_infer_compares_the_heads_outputs_and_teaches_the_live_ones():
    remedy, memory = REGULARISERS["infer"], begin("infer")
    heads = np.asarray(memory["frozen"])
    assert heads.shape == (8, HEADS)
    memory = memory | {"frozen": heads[:4], "live": heads[:4]}  # of the four features of `linear`
    now, then = (IMAGES @ each["head"]["kernel"][:2] @ heads[:4] for each in (PARAMS, FIRST))
    given = dict(features=linear(PARAMS, {}, IMAGES, True)[1], forward=linear)
    penalty = remedy.act(seen(PARAMS, memory, **given), strength=0.5, scale=3.0)
    np.testing.assert_allclose(penalty, 0.5 * np.mean(np.sum((now - 3 * then) ** 2, 1)), rtol=1e-5)
    network = Network(PARAMS, {}, (), {})
    told = treated.now_of(MLP, network)._replace(images=IMAGES, forward=linear, rate=0.01)
    after = remedy.watch(memory, network, told, {"strength": 0.5, "scale": 3.0})
    features = IMAGES @ PARAMS["head"]["kernel"][:2]
    step = 0.01 * 0.5 * 2 * features.T @ (now - 3 * then) / 3
    np.testing.assert_allclose(after["live"], heads[:4] - step, rtol=1e-4, atol=1e-6)


def cross_entropy(logits, teacher):
    p = np.exp(teacher) / np.sum(np.exp(teacher), 1, keepdims=True)
    return -np.mean(np.sum(p * (logits - np.log(np.sum(np.exp(logits), 1, keepdims=True))), 1))


def test_churn_compares_with_the_network_before_the_last_update_on_other_images():
    remedy, others = REGULARISERS["churn"], 2 * IMAGES[::-1] + 1
    network = Network(FIRST, {}, (), {})
    assert jax.tree.leaves(begin("churn"))[0] is jax.tree.leaves(PARAMS)[0]
    memory = remedy.watch(begin("churn"), network, treated.now_of(MLP, network)._replace(before=PARAMS), {})
    penalty = remedy.act(seen(FIRST, memory, reference=others, forward=linear), strength=0.1)
    now, before = (linear(params, {}, others, True)[0] for params in (FIRST, PARAMS))
    np.testing.assert_allclose(penalty, 0.1 * cross_entropy(np.asarray(now), np.asarray(before)), rtol=1e-5)


@pytest.mark.parametrize(("time", "weight"), [(0.0, 1.0), (0.2, 0.5), (0.4, 0.0), (0.9, 0.0)])
def test_distillation_follows_the_network_before_less_and_less(time, weight):
    logits = RNG.normal(size=(3, 4)).astype(np.float32)
    given = dict(logits=logits, forward=linear, time=jnp.float32(time))
    penalty = REGULARISERS["distillation"].act(seen(PARAMS, begin("distillation"), **given), strength=2.0, share=0.4)
    teacher = np.asarray(linear(FIRST, {}, IMAGES, False)[0])
    np.testing.assert_allclose(penalty, 2 * weight * cross_entropy(logits, teacher), rtol=1e-5, atol=1e-7)
