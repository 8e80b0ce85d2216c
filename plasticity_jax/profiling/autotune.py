"""Measures which strategy of the run axis trains the packs of a study fastest on this machine.

Every stage shape of a pack is compiled with each strategy and trains briefly in interleaved rounds, with fresh networks
and the study's images.  Nothing is saved.  Evaluation and checkpoints are not measured.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from plasticity_jax import target
from plasticity_jax.errors import LabError
from plasticity_jax.parallel import run_axis
from plasticity_jax.parallel.programs import Programs
from plasticity_jax.runner import prepare, schedule, windows
from plasticity_jax.runner.context import Compute
from plasticity_jax.runner.progress import Progress
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.runner.units import count
from plasticity_jax.training import state, step

ROUNDS = 4  # even, so that every strategy runs early and late equally often
ROUND_SECONDS = 0.7  # of each strategy in each round
HOPELESS = 4.0  # a strategy this many times slower than the best in the first measurement is not measured again
NOISE = 1.03  # smallest gain that is reported

Lane = Callable[[int], tuple[int, float]]  # steps of each run -> (images trained, seconds)
Seconds = dict[str, list[float]]  # strategy -> time for all training, as estimated from each round
TAKEN = "taken"  # key in `Seconds`, beside the strategies: the strategy that each pack would use


@dataclasses.dataclass(frozen=True)
class Trial:
    """One strategy on one stage shape: images/s in each round; `note` says why it was not measured fully."""

    rates: tuple[float, ...]
    note: str = ""


def tune(entries: Sequence[Compute], asked: str) -> Iterator[str]:
    """Measures all packs; `asked` is `config.strategy`.

    Yields:
      A table for each stage shape and a verdict for each pack; for several packs also one over all.

    Raises:
      LabError: no strategy can train a pack on this machine.
    """
    progress = Progress(0)
    images = entries[0].images if entries[0].in_windows else jax.device_put(entries[0].images)
    what = "auto takes" if asked == "auto" else "the config takes"
    packs = []
    for entry in entries:
        name, taken = entry.pack.name, entry.programs.strategy
        total, shapes = sum(times.images() for times in entry.timetables.values()), []
        for groups in alike(entry.timetables.values()):
            title, shown = f"{name}/{'+'.join(t.group.name for t in groups)}", sum(t.images() for t in groups)
            lanes, made = lanes_of(entry, groups[0], images)
            trials = race(lanes, functools.partial(_say, progress, title))
            runs = count(len(groups[0].group.runs), "run")
            head = f"{title}: {runs} side by side, {100 * shown / total:.0f} % of the images"
            yield table(head, trials, {name: programs.seconds for name, programs in made.items()})
            shapes.append({name: [shown / rate for rate in trial.rates] for name, trial in trials.items()})
        seconds = add(shapes)
        if not seconds:
            raise LabError(f"{name}: no strategy trains all its stages here; see the table")
        packs.append(seconds | ({TAKEN: seconds[taken]} if taken in seconds else {}))
        yield verdict(name, packs[-1], f"{what} {taken}", advise=len(entries) == 1)
    if len(entries) > 1:
        taken = ", ".join(dict.fromkeys(entry.programs.strategy for entry in entries))
        yield verdict("all packs", add(packs), f"{what} {taken}", advise=True)


def alike(timetables: Iterable[Timetable]) -> list[list[Timetable]]:
    """The timetables grouped by shared program; within a group the one with the most images comes first."""
    shared: dict[object, list[Timetable]] = {}
    for times in timetables:
        shape = tuple(sorted(times.group.stage.shape().items()))
        shared.setdefault((len(times.group.runs), shape), []).append(times)
    return [sorted(groups, key=Timetable.images, reverse=True) for groups in shared.values()]


def race(lanes: Mapping[str, Lane], say: Callable[[str, bool], None]) -> dict[str, Trial]:
    """Measures each lane once, then the fast ones in rounds, every other round in reversed order.

    A lane that raises an error is dropped.  `say(line, stays)` reports progress.
    """
    trials: dict[str, Trial] = {}
    steps: dict[str, int] = {}
    for name, lane in lanes.items():
        say(f"{name}: compiling", False)
        try:
            steps[name], rate = look(lane)
            trials[name] = Trial((rate,) * ROUNDS)
        except Exception as error:  # whatever XLA raises where memory or a kernel is missing
            trials[name] = _failed(error)
        say(f"{name}: {trials[name].note or f'about {trials[name].rates[0]:,.0f} images/s'}", True)
    best = max((trial.rates[0] for trial in trials.values() if trial.rates), default=0.0)
    for name in list(steps):
        slower = best / trials[name].rates[0]
        if slower > HOPELESS:
            del steps[name]
            trials[name] = Trial(trials[name].rates, f"given up: {slower:.0f} times slower than the best")
    rates_of: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(ROUNDS):
        say(f"round {i + 1} of {ROUNDS}", i + 1 == ROUNDS)
        for name in list(rates_of)[:: -1 if i % 2 else 1]:
            try:
                shown, seconds = lanes[name](steps[name])
                rates_of[name].append(shown / seconds)
            except Exception as error:  # as above
                del rates_of[name]
                trials[name] = _failed(error)
    return trials | {name: Trial(tuple(rates)) for name, rates in rates_of.items()}


def look(lane: Lane) -> tuple[int, float]:
    """(the number of steps that takes about `ROUND_SECONDS`, at least 1; images/s)."""
    steps = 1
    while True:
        shown, seconds = lane(steps)
        fitting = max(1, round(steps * ROUND_SECONDS / max(seconds, 1e-6)))
        if fitting < 2 * steps:
            return fitting, shown / seconds
        steps = min(fitting, 10 * steps)


def _failed(error: Exception) -> Trial:
    return Trial((), f"failed: {' '.join((str(error) or type(error).__name__).split())[:80]}")


def lanes_of(entry: Compute, times: Timetable, images: step.Images) -> tuple[dict[str, Lane], dict[str, Programs]]:
    """A lane for each strategy, and the programs that it will compile."""
    # On an accelerator `CORES` are `map`; if no core would be idle, `split` equals `cores`.
    names = [name for name in run_axis.STRATEGIES if name not in run_axis.CORES or target.backend() == "cpu"]
    if run_axis.layout("split", len(times.group.runs)) == run_axis.layout("cores", len(times.group.runs)):
        names = [name for name in names if name != "split"]
    computes = {name: prepare.taking(entry, {**entry.choice, "strategy": name}) for name in names}
    made, (task, first) = {name: compute.programs for name, compute in computes.items()}, start(entry, times)
    shown = {name: windows.sample(compute, times) if entry.in_windows else images for name, compute in computes.items()}
    return {name: functools.partial(train_moment, made[name], times, task, first, shown[name]) for name in names}, made


def start(entry: Compute, times: Timetable) -> tuple[step.Task, state.TrainState]:
    """The tasks of a group with early ends disabled, and fresh states [R] in numpy."""
    networks = {seed: entry.programs.init(state.init_key(seed)) for seed in {run.seed for run in times.group.runs}}
    params, stats = run_axis.stack_on_host([networks[run.seed] for run in times.group.runs])
    like = entry.states_like(times.group)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    task = schedule.tasks(times, entry.slots)
    task = task._replace(until_accuracy=np.zeros_like(task.until_accuracy))
    if task.watch:  # start in the last learning stage, and do not let it end early
        kept = task.watch._replace(end_last=np.zeros_like(task.watch.end_last))
        task = task._replace(watch=kept, starts=np.zeros_like(task.starts))
    return task, zeros.replace(params=params, stats=stats)


def train_moment(
    programs: Programs, times: Timetable, task: step.Task, first: state.TrainState, images: step.Images, steps: int
) -> tuple[int, float]:
    """Trains every run `steps` steps from `first` (numpy), in calls of at most an epoch; returns (images, seconds).

    Every round begins with the same networks, so that all strategies do the same work.
    """
    stage, count = times.group.stage, len(times.group.runs)
    task = task._replace(steps=np.maximum(task.steps, steps))  # a stage may be shorter than a round
    most = min(times.epoch_steps)
    ends = [*range(most, steps, most), steps]
    targets = [np.full(count, end, np.int32) for end in ends]
    states, task = programs.place((first, task))
    # Calls without steps: one compiles the program, one consumes its result (`loop` compiles programs to split it).
    for _ in range(2):
        states, _ = programs.advance(stage, states, (task, programs.place(np.zeros(count, np.int32))), images)
    jax.block_until_ready(states)
    start = time.perf_counter()
    for until in targets:
        states, _ = programs.advance(stage, states, (task, programs.place(until, idle=0)), images)
    jax.block_until_ready(states)
    seconds = time.perf_counter() - start
    return int(np.sum(run_axis.fetch(states.step, count))) * stage.batch_size, seconds


def add(parts: Sequence[Seconds]) -> Seconds:
    """The sum over parts, round by round, for the strategies that all parts have."""
    names = [name for name in parts[0] if all(part.get(name) for part in parts)]
    return {name: [sum(times) for times in zip(*(part[name] for part in parts), strict=True)] for name in names}


def table(head: str, trials: Mapping[str, Trial], compiling: Mapping[str, float]) -> str:
    """A table by strategy: median images/s of all runs together, compile time, and range over rounds."""
    lines = [head, f"  {'strategy':10}{'images/s':>10}{'compiled in':>14}  range"]
    for name, trial in trials.items():
        if not trial.rates:
            lines.append(f"  {name:10}{'-':>10}{'-':>14}  {trial.note}")
            continue
        span = trial.note or f"{min(trial.rates):,.0f} to {max(trial.rates):,.0f}"
        lines.append(f"  {name:10}{statistics.median(trial.rates):10,.0f}{compiling[name]:12.1f} s  {span}")
    return "\n".join(lines)


def verdict(name: str, seconds: Seconds, what: str, advise: bool) -> str:
    """A line that names the fastest strategy, if it beats the current one in every round and by `NOISE` in the median.

    `advise` adds the flag to set.  Rounds are compared one by one, since a slow machine slows both.
    """
    best = min((s for s in seconds if s != TAKEN), key=lambda s: statistics.median(seconds[s]), default="")
    if not best:
        return f"{name}: {what}; no single strategy trains all packs here"
    flag = f": --config.strategy={best}" if advise else ""
    if TAKEN not in seconds:
        return f"{name}: {what}, which fails here; the fastest is {best}{flag}"
    gains = [taken / other for taken, other in zip(seconds[TAKEN], seconds[best], strict=True)]
    gain = f"x{statistics.median(gains):.2f}, {min(gains):.2f} to {max(gains):.2f} by round"
    if seconds[TAKEN] == seconds[best]:
        return f"{name}: {what}, the fastest here"
    if min(gains) <= 1 or statistics.median(gains) < NOISE:
        return f"{name}: {what}, as good as any here ({best}: {gain})"
    return f"{name}: {what}; the fastest here is {best} ({gain}){flag}"


def _say(progress: Progress, title: str, line: str, stays: bool) -> None:
    (progress.note if stays else progress.write)(f"{title}  {line}")
