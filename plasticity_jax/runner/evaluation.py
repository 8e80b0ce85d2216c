"""Evaluates the runs of a stage at one epoch: exact sums, diagnostics, and the rows of the table."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from plasticity_jax.config.plan import Group
from plasticity_jax.parallel import run_axis
from plasticity_jax.runner import feed, schedule, windows
from plasticity_jax.runner.context import Context
from plasticity_jax.runner.dispatch import fitting
from plasticity_jax.runner.eval_sets import probes, scored_on
from plasticity_jax.runner.lineup import Lineup
from plasticity_jax.storage.metrics import Row
from plasticity_jax.training import evaluation, state
from plasticity_jax.training.state import RUNNING

Tree = Any
AVERAGED = {"test", "train_eval"}  # sets on which the moving average of the weights is evaluated too
ENDS = "learning_stage_end/"


class Evaluator:
    """Evaluates the active runs; copies its inputs to the devices once, on construction."""

    def __init__(self, group: Group, context: Context, lineup: Lineup):
        self.group = group
        self.context = context
        self.runs = lineup.runs
        programs, times = context.programs, context.timetables[group.name]
        self.scored = {
            name: scored._replace(
                source=programs.place(run_axis.take(scored.source, self.runs))
                if scored.own
                else programs.replicate(scored.source, len(self.runs))
            )
            for name, scored in scored_on(times, context.study, context.slots).items()
        }
        self.windows = {
            name: windows.scoring(context, scored, self.runs)
            for name, scored in scored_on(times, context.study, context.slots).items()
        }
        self.sizes = dict.fromkeys(self.scored, 1)  # batches of the next call
        self.diagnosed: Tree = ()
        if programs.diagnostics:
            seeds = [group.runs[run].seed for run in self.runs]
            initial = run_axis.stack_on_host([programs.init(state.init_key(seed))[0] for seed in seeds])
            self.diagnosed = programs.place((initial, run_axis.take(probes(times), self.runs)))
            self.looks = windows.diagnosing(context, times, self.runs)

    def measure(self, states: Tree, due: np.ndarray, stop_if_asked: Callable[[], None]) -> dict[str, np.ndarray]:
        """Every metric [R] of the runs that are `due`, accuracies in percent; NaN if a loss is not finite.

        May stop between calls if a signal was received; nothing is lost then.
        """
        context, times = self.context, self.context.timetables[self.group.name]
        here, epoch_steps = due[self.runs], np.asarray(times.epoch_steps)[self.runs]
        flags = context.programs.place(here, idle=False)
        evaluated = looked_at(states)
        sums: Tree = {name: self._sums(name, evaluated, flags, stop_if_asked) for name in self.scored}
        if states.average:
            params, stats = states.average
            average = evaluated.replace(params=params, stats=stats)
            for name in (name for name in self.scored if name in AVERAGED):
                sums[f"ema_{name}"] = self._sums(name, average, flags, stop_if_asked)
        diagnosed: Tree = {}
        if context.programs.diagnostics:
            images = [look.filled() for look in self.looks]
            diagnosed = context.programs.diagnose(evaluated, flags, self.diagnosed, *images)
        ends = states.clock.ends if states.clock else ()
        sums, diagnosed, last, ends = run_axis.fetch((sums, diagnosed, states.last, ends), len(self.runs))
        values = _values(sums, diagnosed, last, ends, here, epoch_steps)
        return {name: self._of_all(value) for name, value in values.items()}

    def _of_all(self, values: np.ndarray) -> np.ndarray:
        whole = np.full(len(self.group.runs), np.nan)
        whole[self.runs] = values
        return whole

    def _sums(
        self, name: str, states: Tree, flags: Tree, stop_if_asked: Callable[[], None]
    ) -> list[evaluation.Metrics]:
        """The sums of calls that together cover all batches of a set; the last call may still be running."""
        programs, scored, made = self.context.programs, self.scored[name], []
        program = programs.evaluate_own if scored.own else programs.evaluate
        window, end = self.windows[name], -(-scored.length // programs.eval_batch)
        starts = range(0, end, window.batches)
        spans = [(start, min(end, start + window.batches)) for start in starts]
        sent = feed.one_ahead([functools.partial(window.filled, *span) for span in spans])
        for (first, limit), images in zip(spans, sent, strict=True):
            while first < limit:
                stop_if_asked()
                last = min(limit, first + self.sizes[name])
                start, compiled = time.perf_counter(), programs.seconds
                made.append(program(states, flags, scored.source, (first, last), images))
                if last < end:
                    jax.block_until_ready(made[-1])
                    taken = time.perf_counter() - start - (programs.seconds - compiled)
                    self.sizes[name] = fitting(last - first, taken)
                first = last
        return made


def _values(
    sums: dict[str, list[Tree]], diagnosed: Tree, last: np.ndarray, ends: Any, due: np.ndarray, epoch_steps: np.ndarray
) -> dict[str, np.ndarray]:
    """Every metric by name, from the results of programs."""
    values = dict[str, np.ndarray]()
    for name, calls in sums.items():
        # Each batch is in one of the calls, and zero in the others; cumsum adds batches in a fixed order.
        total = {kind: np.cumsum(sum(call[kind].astype(np.float64) for call in calls), 1)[:, -1] for kind in calls[0]}
        count = np.where(due, total["count"], np.nan)
        means = {"loss": total["loss"] / count, "accuracy": 100.0 * total["correct"] / count}
        values |= _scores(name, {f"{name}_{kind}": mean for kind, mean in means.items()})
    values |= _scores("train", dict(zip(RUNNING, np.asarray(last, np.float64).T, strict=True)))
    # In epochs; NaN for learning stages that have not ended.
    stages = ends.T if len(ends) else ()
    values |= {f"{ENDS}{k + 1}": np.where(end > 0, end / epoch_steps, np.nan) for k, end in enumerate(stages)}
    finite = np.isfinite(values["test_loss"])  # a diverged network would have 0 dormant units
    return values | {name: np.where(finite, np.asarray(value, np.float64), np.nan) for name, value in diagnosed.items()}


def looked_at(states: Tree) -> Tree:
    """The part of the states that evaluation uses, so that stages with different optimisers share its programs."""
    return states.replace(opt=(), average=(), remedy=(), clock=())


def _scores(name: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values, with NaN accuracy if the loss is not finite, since argmax of NaN logits would be class 0."""
    finite = np.isfinite(values[f"{name}_loss"])
    return values | {f"{name}_accuracy": np.where(finite, values[f"{name}_accuracy"], np.nan)}


def due(times: schedule.Timetable, closed: Sequence[bool], epoch: float, done: np.ndarray) -> np.ndarray:
    """bool [R]: the runs to evaluate at an event, if they are not yet recorded to their end."""
    now = [epoch in points for points in times.points]
    return ~np.asarray(closed) & (np.asarray(done) | np.asarray(now))


def rows(
    group: Group,
    times: schedule.Timetable,
    closed: Sequence[bool],
    epoch: float,
    steps: np.ndarray,
    done: np.ndarray,
    values: Mapping[str, np.ndarray],
    dear: Mapping[str, np.ndarray] | None = None,
) -> tuple[list[Row], list[bool]]:
    """Table rows of this event for the runs that are due, and which runs are now recorded to their end.

    `dear` are the measurements of instruments; NaNs among them give no row.
    """
    values, dear = {**values, **(dear or {})}, dear or {}
    table: list[Row] = []
    for i in np.flatnonzero(due(times, closed, epoch, done)):
        run = group.runs[i]
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
        missing |= {name for name in dear if np.isnan(dear[name][i])}
        metrics: Sequence[str] = [name for name in values if name not in missing]
        table += [{**common, **at_step, "metric": name, "value": _number(values[name][i])} for name in metrics]
    return table, [bool(was or now) for was, now in zip(closed, done, strict=True)]


def _number(value: float) -> float | None:
    """`value`, or None if it is not finite, as in the table."""
    return float(value) if np.isfinite(value) else None
