"""Each regulariser against its definition."""

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.training.remedies.interface import Seen
from plasticity_jax.training.remedies.regularisers import REGULARISERS
from tests.support.tiny import MLP, first_state


def seen(params, memory=(), **given):
    fields = dict(stats={}, images=(), labels=(), logits=(), features={}, forward=None) | given
    return Seen(params=params, memory=memory, **fields)


def test_l2_init_pulls_by_two_strengths_times_the_distance():
    first = first_state(MLP).params
    params = jax.tree.map(lambda leaf: leaf * 1.5 + 0.1, first)
    slope = jax.grad(lambda p: REGULARISERS["l2_init"].act(seen(p, first), strength=0.3))(params)
    for found, theta, theta_0 in zip(*map(jax.tree.leaves, (slope, params, first)), strict=True):
        np.testing.assert_allclose(found, 2 * 0.3 * (theta - theta_0), rtol=1e-5)
    assert (
        len(jax.tree.leaves(slope)) == 4
        and jnp.ndim(REGULARISERS["l2_init"].act(seen(params, first), strength=1.0)) == 0
    )
