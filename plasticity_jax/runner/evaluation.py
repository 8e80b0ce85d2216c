"""Evaluation of a stage's runs at one epoch: exact sums, diagnostics, and the rows of the table."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax.config.plan import Group
from plasticity_jax.parallel import multihost
from plasticity_jax.runner import schedule
from plasticity_jax.runner.context import Context
from plasticity_jax.runner.eval_sets import Scored, probes, scored_on
from plasticity_jax.storage.metrics import Row
from plasticity_jax.training import step
from plasticity_jax.training.state import RUNNING

Tree = Any
AVERAGED = {"test", "train_eval"}  # what the moving average of the weights is evaluated on too
ENDS = "learning_stage_end/"


def measure(
    group: Group, context: Context, states: Tree, initial: Tree, stop_if_asked: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Every metric [R] of the states, accuracies in percent; NaN where a network's loss is not finite.

    Stops between batches if asked; nothing is lost then.
    """
    times, values = context.timetables[group.name], dict[str, np.ndarray]()
    scored = scored_on(times, context.study, context.slots)
    running = np.asarray(multihost.fetch(states.last), np.float64)
    ends = np.asarray(multihost.fetch(states.clock.ends)) if states.clock else np.zeros((len(group.runs), 0))
    evaluated = looked_at(states)
    for name, images in scored.items():
        values |= _evaluate(name, evaluated, images, context, stop_if_asked)
    if states.average:
        params, stats = states.average
        for name in (name for name in scored if name in AVERAGED):
            average = evaluated.replace(params=params, stats=stats)
            values |= _evaluate(f"ema_{name}", average, scored[name], context, stop_if_asked)
    values |= _scores("train", dict(zip(RUNNING, running.T, strict=True)))
    # In epochs; nothing is known of learning stages that have not ended, nor if they could be.
    epoch_steps = np.asarray(times.epoch_steps)
    values |= {f"{ENDS}{k + 1}": np.where(end > 0, end / epoch_steps, np.nan) for k, end in enumerate(ends.T)}
    if context.programs.diagnostics:
        diagnosed = multihost.fetch(
            context.programs.diagnose(evaluated, (initial, probes(times)), context.images, context.test_images)
        )
        finite = np.isfinite(values["test_loss"])  # the dormant units of a network that diverged are not 0
        values |= {name: np.where(finite, np.asarray(value, np.float64), np.nan) for name, value in diagnosed.items()}
    return values


def looked_at(states: Tree) -> Tree:
    """The part of the states that evaluation looks at: so stages of all optimisers share its programs."""
    return states.replace(opt=(), average=(), remedy=(), clock=())


def _evaluate(
    name: str, states: Tree, scored: Scored, context: Context, stop_if_asked: Callable[[], None]
) -> dict[str, np.ndarray]:
    """Loss and accuracy [R] as sums over all slots, divided once; batch by batch in a fixed order."""
    program = context.programs.evaluate_own if scored.own else context.programs.evaluate
    images = context.images if scored.split == "train" else context.test_images
    sums: dict[str, Any] = {"loss": 0.0, "correct": 0.0, "count": 0.0}
    waiting: list[step.Metrics] = []  # one batch is read while the next is at work
    for first in range(0, scored.length, context.programs.eval_batch):
        stop_if_asked()
        waiting.append(program(states, scored.source, first, images))
        if len(waiting) > 1:
            sums = _add(sums, waiting.pop(0))
    sums = functools.reduce(_add, waiting, sums)
    means = {"loss": sums["loss"] / sums["count"], "accuracy": 100.0 * sums["correct"] / sums["count"]}
    return _scores(name, {f"{name}_{kind}": mean for kind, mean in means.items()})


def _scores(name: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values without the accuracies of runs whose loss is not finite: the largest of NaNs would be class 0."""
    finite = np.isfinite(values[f"{name}_loss"])
    return values | {f"{name}_accuracy": np.where(finite, values[f"{name}_accuracy"], np.nan)}


def _add(sums: dict[str, Any], batch: step.Metrics) -> dict[str, Any]:
    found = multihost.fetch(batch)
    return {key: sums[key] + np.asarray(found[key], np.float64) for key in sums}


def rows(
    group: Group,
    times: schedule.Timetable,
    closed: Sequence[bool],
    epoch: float,
    steps: np.ndarray,
    done: np.ndarray,
    values: Mapping[str, np.ndarray],
) -> tuple[list[Row], list[bool]]:
    """Table rows of this event, for the runs that it concerns; and which runs are recorded to their end now."""
    table: list[Row] = []
    for i, run in enumerate(group.runs):
        if closed[i] or not (done[i] or epoch in times.points[i]):
            continue
        common = {
            "run": run.id,
            "seed": run.seed,
            "branch": run.branch,
            "hparams": dict(run.hparams),
            "stage": run.stage.name,
        }
        at_step = {"epoch": float(steps[i] / times.epoch_steps[i]), "step": int(steps[i])}
        missing = set(RUNNING) if steps[i] < times.epoch_steps[i] else set()
        missing |= {name for name in values if name.startswith(ENDS) and np.isnan(values[name][i])}
        metrics: Sequence[str] = [name for name in values if name not in missing]
        table += [{**common, **at_step, "metric": name, "value": _number(values[name][i])} for name in metrics]
    return table, [bool(was or now) for was, now in zip(closed, done, strict=True)]


def _number(value: float) -> float | None:
    """None for what is not finite, as the table has it."""
    return float(value) if np.isfinite(value) else None
