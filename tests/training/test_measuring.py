"""A run as instruments see it: its loss, its derivatives, and the statistics of its BatchNorm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax.data import deficits
from plasticity_jax.diagnostics.subject import Part, dot
from plasticity_jax.models import pooling, products
from plasticity_jax.training import measuring, optimizers, step
from plasticity_jax.training.gradient import forward
from tests.support.tiny import CONVOLVED, DATASET, IMAGES, MLP, changed, first_state, stage, task

STAGE = stage(name="adam", learning_rate=0.1, batch_size=16)
PROBE = Part(np.arange(32, dtype=np.int32), DATASET.train_labels[:32].astype(np.int32), np.ones(32, np.float32), False)


def subject_of(model, state, record=STAGE, probe=PROBE, given=None):
    probe = probe._replace(old=np.zeros(len(probe.label), bool))
    row = measuring.Measured(given or task(record), probe, state.params, state.params, np.False_, np.True_)
    return measuring.subject_of(state, row, IMAGES, model=model, stage=record)


def batch():
    return IMAGES.take(PROBE.index), PROBE.label


@functools.cache
def seen():
    """Measurements of a fresh network with a convolution and BatchNorm; its Hessian product by two methods."""
    state = first_state(CONVOLVED, STAGE)
    vector = jax.tree.map(
        lambda leaf: jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape), state.params
    )

    @jax.jit
    def go(state):
        subject, (images, labels) = subject_of(CONVOLVED, state), batch()

        def trained(params):  # in train mode, BatchNorm has the statistics of the batch
            logits = forward(CONVOLVED, params, state.stats, images, train=True)[0]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        stats = measuring.settled(CONVOLVED, state.params, state.stats, lambda part: images, subject)

        def fast(params):  # by the gradients of training
            logits = forward(CONVOLVED, params, stats, images, train=False)[0]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return {
            "loss": subject.loss(subject.params),
            "trained": trained(state.params),
            "product": subject.hessian(subject.params, vector),
            "reverse": jax.grad(lambda params: dot(jax.grad(fast)(params), vector))(state.params),
            "rate": subject.rate,
        }

    return jax.device_get(go(state))


@pytest.mark.slow
def test_batch_norm_has_the_statistics_of_the_images_that_are_measured():
    assert seen()["loss"] == pytest.approx(seen()["trained"], rel=1e-5)


def test_products_with_the_hessian_are_those_of_reverse_mode_twice():
    """Forward mode through plain operations gives the same as differentiating the fast gradients in reverse mode."""
    product, reverse = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(seen()[k])]) for k in ("product", "reverse")
    )
    np.testing.assert_allclose(product, reverse, atol=1e-5 * np.abs(reverse).max())


def test_the_rate_is_that_of_the_step_to_come():
    warming = stage(name="adam", learning_rate=0.1, warmup=0.5)
    state = first_state(MLP, warming).replace(step=jnp.int32(2))  # of 10: two fifths of the warm-up
    assert float(subject_of(MLP, state, warming).rate) == pytest.approx(0.04)
    assert seen()["rate"] == pytest.approx(0.1)


def test_what_is_measured_of_narrow_networks_is_float32():
    narrow = measuring.whole(MLP.clone(dtype=jnp.dtype("bfloat16")))
    assert narrow.dtype == jnp.float32


def test_a_run_that_is_not_due_is_nan_and_keeps_its_memory():
    state = first_state(MLP, STAGE)
    probe = PROBE._replace(old=np.zeros(32, bool))
    row = measuring.Measured(task(STAGE), probe, state.params, state.params, np.False_, np.False_, jnp.float32(3))
    instrument = measuring.Remembering(lambda subject: ({"x": subject.rate}, jnp.float32(4)), lambda *_: None)

    @jax.jit
    def go(due):
        return measuring.measure(state, row._replace(due=due), IMAGES, model=MLP, stage=STAGE, instrument=instrument)

    assert np.isnan(go(False)[0]["x"]) and go(False)[1] == 3
    assert float(go(True)[0]["x"]) == pytest.approx(0.1) and go(True)[1] == 4


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_optimisers_divide_by_what_is_said(name):
    """After one step with the gradient, the state has the second moment from which the scales are computed."""
    rule = changed(STAGE.optim, name=name)
    h, params = task(stage(optim=rule)).hyper, {"w": jnp.array([1.0, -2.0])}
    first = optimizers.optimiser(rule, h, 0.1)
    _, opt = first.update({"w": jnp.array([0.5, 3.0])}, first.init(params), params)
    slope = {"w": jnp.array([0.1, -1.0])}
    scales = optimizers.scales(rule, h, opt, jax.tree.map(jnp.square, slope))["w"]
    _, after = first.update(slope, opt, params)
    moments = [leaf for leaf in jax.tree.leaves(after) if leaf.shape == (2,)]
    corrected = 1 if name == "rmsprop" else 1 - 0.999**2
    expected = np.sqrt(np.asarray(moments[-1]) / corrected) + 1e-8
    np.testing.assert_allclose(scales, expected, rtol=1e-4)


def test_sgd_divides_by_nothing():
    assert subject_of(MLP, first_state(MLP, stage()), stage()).scales is None


def test_pooling_can_be_differentiated_forwards_where_it_is_plain():
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 1))

    def plain(x):
        with products.plain():
            return jnp.sum(jnp.square(pooling.max_pool(x, 3, 2, 1)))

    moved = jax.jit(lambda x: jax.jvp(jax.grad(plain), (x,), (jnp.ones_like(x),))[1])(x)
    wins = jax.jit(jax.grad(lambda x: jnp.sum(pooling.max_pool(x, 3, 2, 1))))(x)
    np.testing.assert_allclose(moved, 2 * wins, rtol=1e-6)


def test_the_subject_after_the_step_to_come_is_that_of_the_step():
    state, row = first_state(MLP, STAGE), task(STAGE)

    @jax.jit
    def go(state, row):
        after = step.advance(state, (row, 1), IMAGES, model=MLP, stage=STAGE)
        return subject_of(MLP, state, given=row).following().params, after.params

    for a, b in zip(*map(jax.tree.leaves, go(state, row)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_loss_is_that_of_images_as_the_stage_sees_them():
    """Blurred, if the stage trains on blurred images."""
    state = first_state(MLP, STAGE)

    @functools.partial(jax.jit, static_argnames="record")
    def loss(record):
        return subject_of(MLP, state, record).loss(state.params)

    @jax.jit
    def by_hand():
        images, labels = batch()
        logits = forward(MLP, state.params, state.stats, deficits.blur(images), train=False)[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    blurred, clear = loss(changed(STAGE, data=changed(STAGE.data, deficit="blur"))), loss(STAGE)
    assert float(blurred) == pytest.approx(float(by_hand()), rel=1e-5) != pytest.approx(float(clear), rel=1e-3)
