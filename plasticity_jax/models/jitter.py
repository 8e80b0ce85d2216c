"""Noise added in training to the outputs of normalisation layers, before the ReLUs.

Follows Li, Wei & Ma 2019 ("Towards explaining the regularization effect of initial large learning rate in training
neural networks", arXiv 1907.04595), who give a network with a small learning rate the noise of a large one.
"""

import contextlib
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from plasticity_jax.models.batch_norm import BatchNorm

NORMS = (BatchNorm, nn.BatchNorm, nn.GroupNorm, nn.LayerNorm)


def on_activations(deviation: Any, key: Array | None) -> AbstractContextManager[Any]:
    """Context that adds normal noise of standard deviation `deviation` to all normalisation outputs; () for none.

    Each layer folds its path in the network into the key, so the noise does not depend on the order of calls.
    """
    if isinstance(deviation, tuple) or key is None:
        return contextlib.nullcontext()

    def noisy(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        given = call(*args, **kwargs)
        if context.method_name != "__call__" or not isinstance(context.module, NORMS):
            return given
        place = zlib.crc32("/".join(context.module.path).encode())
        return given + (deviation * jax.random.normal(jax.random.fold_in(key, place), given.shape)).astype(given.dtype)

    return nn.intercept_methods(noisy)
