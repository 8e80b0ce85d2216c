"""One training step with recorded numbers, which are equal on every processor up to rounding."""

import functools

import jax
import numpy as np

from plasticity_jax import models
from plasticity_jax.training import step as train
from tests.support.tiny import DATASET, OPTIM, RESNET, first_state, stage, task

STEPS = 10
PLAIN = stage(schedule="linear", decay=0.0)  # common to all, so that they share programs

# The first step of the tiny ResNet from seed 0 on the first eight images, by plain gradient descent.
NUMBERS = {
    "correct": 2.0,
    "count": 8.0,
    "loss": 13.5806,
    "gradient stem": 2.97148,
    "norm stem": 2.02344,
    "gradient module2": 2.26425,
    "norm module2": 3.7663,
    "gradient module3": 6.53411,
    "norm module3": 5.00855,
    "gradient module4": 2.59823,
    "norm module4": 7.68072,
    "gradient module5": 2.3861,
    "norm module5": 10.5949,
    "gradient head": 1.71649,
    "norm head": 1.20323,
    "statistics": 8.9639,
}


def batch(n=8):
    """The first images, on the host."""
    pixels = DATASET.train_images[:n] / np.float32(255)
    image = (pixels - np.float32(DATASET.mean)) / np.float32(DATASET.std)
    return {"image": image, "label": DATASET.train_labels[:n]}


def step(state, batch, model, stage=PLAIN, steps=STEPS):
    """One step of a stage of the given length."""
    return one_step(state, batch, task(stage, steps=steps), model, stage)


@functools.partial(jax.jit, static_argnums=(3, 4))
def one_step(state, batch, task, model, stage):
    return train.train_step(state, batch, model=model, stage=stage, task=task)


def norm(tree) -> float:
    return np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(tree)))


def numbers() -> dict[str, float]:
    """The values of `NUMBERS`, computed now."""
    before = first_state(RESNET)
    before, (after, sums) = jax.device_get((before, step(before, batch(), RESNET)))
    numbers_of = {name: float(sums[name]) for name in ("correct", "count", "loss")}
    for name in models.module_names(before.params):
        # With plain gradient descent the gradient is the change of the weights over the learning rate.
        move = jax.tree.map(np.subtract, before.params[name], after.params[name])
        numbers_of[f"gradient {name}"] = norm(move) / OPTIM.learning_rate
        numbers_of[f"norm {name}"] = norm(after.params[name])
    numbers_of["statistics"] = norm(after.stats)
    return {name: float(f"{value:.6g}") for name, value in numbers_of.items()}
