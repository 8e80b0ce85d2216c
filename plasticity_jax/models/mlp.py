"""Multi-layer perceptrons and logistic regression."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config.spec import Model
from plasticity_jax.models import layers
from plasticity_jax.models.precision import compute_dtype


class MLP(nn.Module):
    """`depth` hidden layers `layer1`, `layer2`, .. of `width` units and a dense `head`, on flattened images.

    Dropout, if any, follows each activation.  Depth 2 and width 100 give the perceptron of Ash & Adams 2020; depth 0 is
    logistic regression.
    """

    classes: int
    depth: int
    width: int
    dtype: Any
    activation: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Array, train: bool) -> tuple[Array, dict[str, Array]]:
        x = images.reshape(images.shape[0], -1)
        features = {}
        for i in range(1, self.depth + 1):
            x = layers.ACTIVATIONS[self.activation](layers.dense(self.width, x.shape[-1], self.dtype, f"layer{i}")(x))
            features[f"layer{i}"] = x
            x = layers.drop(x, self.dropout, train)
        features["penultimate"] = x.astype(jnp.float32)
        return layers.dense(self.classes, x.shape[-1], jnp.float32, "head")(features["penultimate"]), features


def mlp(model: Model, classes: int) -> nn.Module:
    """An `MLP`; ignores the model's stem and norm."""
    dtype = jnp.dtype(compute_dtype(model.dtype))
    return MLP(classes, model.depth, model.width, dtype, model.activation, model.dropout)


def logistic(model: Model, classes: int) -> nn.Module:
    """An `MLP` without hidden layers, always float32; ignores all fields of the model."""
    del model
    return MLP(classes, 0, 0, jnp.dtype("float32"))
