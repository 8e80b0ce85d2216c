"""A pass over all data of ONE run at the start of a stage, for remedies that need it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax import sharding
from plasticity_jax.config import spec
from plasticity_jax.data import deficits, patches
from plasticity_jax.training.gradient import gradient
from plasticity_jax.training.state import create
from plasticity_jax.training.step import Images, Task


def sweep(model: nn.Module, stage: spec.Stage, task: Task, images: Images) -> Callable[..., Any]:
    """`Begun.sweep` of one run: folds the gradients of all batches of its data in a fixed order, without augmentation.

    The last batch is padded with the first images.
    """
    plain = dataclasses.replace(stage, remedies=(), trained=("all",))

    def over(params: Any, stats: Any, fold: Callable[[Any, Any], Any], carry: Any) -> Any:
        network = create(params, stats, plain)

        def body(number: Array, carry: Any) -> Any:
            slots = sharding.split(number * stage.batch_size + jnp.arange(stage.batch_size)) % task.source.size
            image, label = images.take(task.source.indices[slots]), task.source.labels[slots]
            image = deficits.seen(stage.data.deficit, image)
            if task.source.patches:
                key = patches.evaluation_key(task.source.patches)
                image = patches.paste(task.source.patches, key, slots, slots, image, label)
            batch = {"image": image, "label": label}
            key = jax.random.fold_in(jax.random.fold_in(task.key, 8), number)
            how = {"model": model, "stage": plain, "key": key, "smoothing": task.smoothing}
            slope, _, _ = gradient(network, batch, task.source.classes, **how)
            return fold(carry, slope)

        return jax.lax.fori_loop(0, -(-task.source.size // stage.batch_size), body, carry)

    return over
