"""The functions of one run, (state, row, ..), that `run_axis` maps over many runs."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from plasticity_jax.config import spec
from plasticity_jax.data.batches import Source
from plasticity_jax.training import evaluation, resets, state, step, sweep
from plasticity_jax.training.inputs import Images
from plasticity_jax.training.remedies.apply import NONE, Custom

Tree = Any
Parent = tuple[Tree, Tree, Tree]  # (params, stats, opt) of the parent


class Start(NamedTuple):
    """Inputs of one run at the start of a stage, except its parent: fresh weights to mix in, and the reset's factors.

    initial, task: the initial weights of its seed and its task (with the data of its key), for a stage with remedies;
        else ().
    """

    params: Tree
    stats: Tree
    factors: resets.Factors
    initial: Tree = ()
    task: Any = ()


def begin(
    old: state.TrainState,
    row: tuple[Start, Parent, Array],
    images: Images | None = None,
    *,
    stage: spec.Stage,
    function: resets.CustomReset | None,
    model: nn.Module | None = None,
    remedies: Custom = NONE,
) -> state.TrainState:
    """The state of ONE run at the start of a stage, continued from its row's parent or, if the flag is false, `old`."""
    start, parent, is_given = row
    choose = functools.partial(jnp.where, is_given)
    params, stats, opt = jax.tree.map(choose, parent, (old.params, old.stats, old.opt))
    given = None
    if stage.remedies:
        task = start.task._replace(key=jax.random.wrap_key_data(start.task.key))
        key = jax.random.fold_in(task.key, 7)  # `step` uses 0 to 6
        over = sweep.sweep(model, stage, task, images) if model and images else None
        given = resets.Given(start.initial, task.remedies, remedies, key, over)
    return resets.begin(params, stats, opt, start.params, start.stats, start.factors, stage, function, given)


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
