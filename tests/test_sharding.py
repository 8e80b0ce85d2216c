"""The gradient of one batch that several devices share."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from plasticity_jax import sharding
from plasticity_jax.models import layers
from plasticity_jax.parallel import run_axis


class Net(nn.Module):
    """A layer of each kind, with biases."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(layers.conv(3, 3, 2, "none", self.dtype, "conv")(x))
        return layers.dense(2, 27, self.dtype, "dense")(x.reshape(len(x), -1)).astype(jnp.float32)


def slope(dtype, images):
    """The gradient as a function of (parameters, images), and parameters."""
    net = Net(jnp.dtype(dtype))

    def loss(params, images):
        return jnp.mean(jnp.square(net.apply(params, sharding.split(images))))

    return jax.grad(loss), jax.jit(net.init)(jax.random.key(0), images)


def in_parts(fn):
    """`fn` of (whole, shared batch), as in a program in which two devices train one run."""
    mesh = run_axis.mesh_for("split", 1)
    assert dict(mesh.shape) == {"run": 1, "batch": 2}
    whole = PartitionSpec()
    return jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=whole, out_specs=whole, axis_names={"run"}, check_vma=False))


@pytest.mark.parametrize("images", [4, 5])
def test_gradients_of_weights_are_summed_in_float32(images):
    images = np.random.default_rng(0).normal(size=(images, 6, 6, 2)).astype(np.float32)
    fn, params = slope("bfloat16", images)
    shared = in_parts(fn)
    sums = re.findall(
        r'"stablehlo.all_reduce"(?:.|\n)*?\}\) : \(tensor<(\w+)>\)', shared.lower(params, images).as_text()
    )
    assert sums == ["27x2xf32", "3x3x2x3xf32"]  # those of biases are XLA's, which come in the type of the bias
    slopes, alone = shared(params, images), jax.jit(fn)(params, images)
    for leaf, wanted in zip(jax.tree.leaves(slopes), jax.tree.leaves(alone), strict=True):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, wanted, rtol=0.03, atol=0.01)


def test_a_bias_is_float32_where_a_batch_is_shared():
    x, bias = jnp.ones((2, 3), jnp.float32), jnp.ones(3, jnp.float32)
    types = {}
    for name, run in (("shared", in_parts), ("alone", jax.jit)):
        run(lambda x, bias, name=name: types.update({name: sharding.keep_bias(x, x, bias, dtype="bfloat16")}))(x, bias)
    kinds = {name: [str(array.dtype) for array in arrays] for name, arrays in types.items()}
    assert kinds == {"shared": ["bfloat16", "bfloat16", "float32"], "alone": ["bfloat16"] * 3}


def test_float32_is_left_to_xla():
    images = np.ones((4, 6, 6, 2), np.float32)
    fn, params = slope("float32", images)
    assert "all_reduce" not in in_parts(fn).lower(params, images).as_text()
