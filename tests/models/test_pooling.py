import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plasticity_jax.models import pooling


@pytest.mark.parametrize("size, stride, pad", [(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 0), (3, 3, 1), (5, 2, 2)])
def test_max_pool_and_its_gradient_are_those_of_lax(size, stride, pad):
    window, strides, pads = (1, size, size, 1), (1, stride, stride, 1), ((0, 0), (pad, pad), (pad, pad), (0, 0))

    def plain(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)

    def ours(x):
        return pooling.max_pool(x, size, stride, pad)

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradient(pool, x):
        y, pull = jax.vjp(pool, x)
        return y, *pull(jnp.sin(jnp.arange(1.0, y.size + 1)).reshape(y.shape))

    for shape in ((8, 9), (7, 2)):
        x = np.round(np.random.default_rng(0).standard_normal((2, *shape, 3))).astype(np.float32)  # many ties
        y, dx = with_gradient(ours, x)
        true, true_dx = with_gradient(plain, x)
        np.testing.assert_array_equal(y, true)
        np.testing.assert_allclose(dx, true_dx, atol=1e-6)
        rows = jax.jit(jax.vmap(ours))(x[:, None])
        np.testing.assert_array_equal(rows[:, 0], true)


def test_max_pool_gives_the_whole_gradient_to_the_first_of_equals():
    x = jnp.zeros((1, 2, 2, 1))
    dx = jax.grad(lambda x: pooling.max_pool(x, 2, 2, 0).sum())(x)
    assert dx[0, :, :, 0].tolist() == [[1, 0], [0, 0]]
