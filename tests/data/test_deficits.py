"""Deficits: what a blur leaves of an image, and that it is applied in training but not in evaluation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.data import deficits
from plasticity_jax.training import step
from tests.support.tiny import IMAGES, MLP, first_state, stage, task

BLURRED, CLEAR = (stage(deficit=deficit, learning_rate=0.1, batch_size=16) for deficit in ("blur", "none"))
blur = jax.jit(deficits.blur)


@functools.partial(jax.jit, static_argnames="record")
def trained(state, images, row, record):
    return step.advance(state, row, images, model=MLP, stage=record)


def test_what_has_no_detail_stays_and_detail_goes():
    flat = jnp.full((2, 8, 8, 3), 0.7)
    np.testing.assert_allclose(blur(flat), flat, rtol=1e-6)
    rows, columns = np.indices((8, 8))
    checks = jnp.asarray((-1.0) ** (rows + columns)).reshape(1, 8, 8, 1)
    assert np.abs(blur(checks)).max() < 0.05
    ramp = jnp.asarray(rows, jnp.float32).reshape(1, 8, 8, 1)  # interpolated between the centres of the two halves
    column = np.asarray(blur(ramp))[0, :, 0, 0]
    assert np.all(np.diff(column)[2:-2] > 0.4) and np.ptp(column[:2]) < 1e-6
    assert column[0] + column[-1] == pytest.approx(7.0)


def test_a_quarter_of_the_resolution_is_left():
    """A blurred image has as many degrees of freedom as one of a quarter of the height and width has pixels."""
    units = jnp.eye(64).reshape(64, 8, 8, 1)
    assert np.linalg.matrix_rank(np.asarray(blur(units)).reshape(64, 64), tol=1e-4) == 4
    assert blur(jnp.ones((1, 3, 5, 1))).shape == (1, 3, 5, 1)


@pytest.mark.slow
def test_training_sees_blurred_images():
    before = np.asarray(IMAGES.images, np.float32)
    worse = dataclasses.replace(IMAGES, images=jnp.asarray(np.round(blur(before)).astype(np.uint8)))
    state, row = first_state(MLP, CLEAR), (task(CLEAR), np.int32(3))
    given, same, other = (
        jax.tree.leaves(trained(state, images, row, record).params)
        for images, record in ((IMAGES, BLURRED), (worse, CLEAR), (IMAGES, CLEAR))
    )
    near = max(float(jnp.abs(a - b).max()) for a, b in zip(given, same, strict=True))
    far = max(float(jnp.abs(a - b).max()) for a, b in zip(given, other, strict=True))
    assert near < 0.003 < 10 * near < far
