"""The functions of one run, (state, row, ..), that `run_axis` maps over many runs."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config import spec
from plasticity_jax.data.batches import Source
from plasticity_jax.training import evaluation, state, step
from plasticity_jax.training.inputs import Images
from plasticity_jax.training.remedies.apply import Custom

Tree = Any


def advance(
    states: Tree, row: Tree, images: Images, *, model: nn.Module, stage: spec.Stage, custom: Custom
) -> tuple[state.TrainState, tuple[Array, Array]]:
    after = step.advance(states, row, images, model=model, stage=stage, custom=custom)
    return after, (after.step, after.done)


def evaluate(
    states: Tree, due: Array, source: Source, span: tuple[Array, Array], images: Images, **given: Any
) -> evaluation.Metrics:
    first, last = span
    return evaluation.evaluate(states, source, (first, jnp.where(due, last, first)), images, **given)


def evaluate_own(
    states: Tree, row: tuple[Array, Source], span: tuple[Array, Array], images: Images, **given: Any
) -> evaluation.Metrics:
    due, source = row
    return evaluate(states, due, source, span, images, **given)


def diagnose(
    states: Tree, row: tuple[Array, Tree], images: Images, test_images: Images, **given: Any
) -> evaluation.Metrics:
    due, rows = row
    measure = functools.partial(evaluation.diagnose, states, rows, images, test_images, **given)
    return jax.lax.cond(due, measure, lambda: jax.tree.map(jnp.zeros_like, jax.eval_shape(measure)))
