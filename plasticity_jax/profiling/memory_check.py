"""Checks, before training, whether the runs of a pack fit into the memory of the device.

The estimate covers the device: images, states and initial weights of all runs of a stage, and the memory of each
program.  Copies on the host, such as a checkpoint being written, are not included.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from plasticity_jax import target
from plasticity_jax.config import spec
from plasticity_jax.errors import RoomError
from plasticity_jax.parallel import memory, multihost, run_axis
from plasticity_jax.parallel.of_one import Parent, Start
from plasticity_jax.runner import evaluation, instruments, prepare, schedule, windows
from plasticity_jax.runner.context import Compute, Context
from plasticity_jax.runner.eval_sets import probes, scored_on
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.training import resets
from plasticity_jax.training.inputs import Images
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.state import TrainState

Tree = Any
SMALL = 1 / 8  # share of the free memory up to which images always fit
SMALLER = {  # advice for reducing the memory of each kind of program
    "begin": "a smaller network",
    "advance": "a smaller batch_size or network",
    "evaluate": "a smaller config.eval_batch or network",
    "evaluate_own": "a smaller config.eval_batch or network",
    "measure": "fewer config.instruments, a smaller network",
    "diagnose": "fewer config.diagnostics, a smaller network",
}


@dataclasses.dataclass(frozen=True)
class Call:
    """A program of a stage, and the shapes of its arguments."""

    kind: str
    stage: spec.Stage | None
    args: tuple[Tree, ...]


@dataclasses.dataclass(frozen=True)
class Need:
    """The memory of one program of a stage: bytes on one device by `line`, and by `mapped` with the strategy `map`."""

    stage: str
    kind: str
    runs: int
    line: memory.Line
    mapped: memory.Line

    def total(self, count: int, strategy: str) -> int:
        """Bytes for `count` runs on the device with the most; for devices that are cores of a CPU their sum."""
        devices, ways = run_axis.layout(strategy, count)
        line = self.mapped if strategy == "map" else self.line
        here = sum(device.process_index == jax.process_index() for device in devices)
        return line(-(-count // (len(devices) // ways))) * (here if devices[0].platform == "cpu" else 1)


def check_images(compute: Compute) -> None:
    """Raises a RoomError if the images alone do not fit on a device that has to hold all of them."""
    dataset, available = compute.dataset, free(target.local_devices()[:1])
    if compute.in_windows:
        return
    need = dataset.train_images.nbytes + dataset.test_images.nbytes
    if available is not None and need > available:
        raise RoomError(
            f"the images of {dataset.name} need {memory.text(need)} of memory on the device, which has "
            f"{memory.text(available)} left; set config.images=host"
        )


def placed(compute: Compute, compiling: bool = True) -> Compute:
    """The same pack with its images where `config.images=auto` stores them: on the host if only there all runs fit.

    Programs are compiled for this only if the images need more than a share `SMALL` of the free memory.  Without
    `compiling`, only images that are too large by themselves are stored on the host.
    """
    available = free()
    if compute.study.images != "auto" or compute.in_windows or available is None:
        return compute
    images, moved = memory.size((compute.images, compute.test_images)), compute.choice | {"images": "host"}
    if images > available:
        return prepare.taking(compute, moved)
    if not compiling or images <= SMALL * available or _fits(compute, available):
        return compute
    on_host = prepare.taking(compute, moved)
    return on_host if _fits(on_host, available) else compute


def _fits(compute: Compute, available: int) -> bool:
    needs = (need for times in compute.timetables.values() for need in needs_of(times, compute))
    return all(need.total(need.runs, compute.programs.strategy) <= available for need in needs)


def check(context: Context) -> int | None:
    """Compiles the programs of all remaining stages, and compares their memory with that of the device.

    Returns:
      Bytes per run in the largest program; None if no stage remains or the device does not report its memory.

    Raises:
      RoomError: not all runs of a stage fit; the message says how many do.
    """

    def holding(kind: str) -> list[str]:
        return [name for name in context.timetables if context.checkpoints(name, kind).numbers()]

    ended, begun = multihost.once(lambda: [holding("end"), holding("checkpoints")])
    to_come = [(times, name in begun) for name, times in context.timetables.items() if name not in ended]
    with context.timed("begin"), context.programs.ahead():
        for call in (call for times, old in to_come for call in calls(times, context, old)):
            if context.stopped() or not context.programs.pool:
                break
            context.programs.program(call.kind, call.stage, *call.args)
        needs = [need for times, old in to_come for need in needs_of(times, context, old, context.stopped)]
    per_run, line = compare(needs, context) if needs else (None, "")
    if line:
        context.progress.note(line)
    return per_run


def compare(needs: Sequence[Need], context: Compute) -> tuple[int | None, str]:
    """(bytes per run in the largest program, a line about it); (None, "") if the device does not report its memory.

    Raises:
      RoomError: not all runs of a stage fit.
    """
    available = free()
    if available is None:
        return None, ""
    strategy = context.programs.strategy
    worst = max(needs, key=lambda need: need.total(need.runs, strategy))
    per_run = worst.line.per_run
    total = -multihost.least(-worst.total(worst.runs, strategy))  # of the process with the most
    if total > available:
        raise RoomError(_refusal(worst, needs, available, context))
    return (
        per_run,
        f"  memory: {memory.text(per_run)} per run, {memory.text(total)} in all, of {memory.text(available)}",
    )


def needs_of(
    times: Timetable, context: Compute, begun: bool = False, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Need]:
    """Yields the memory of each program of a group, compiled for all its runs; ends once any process was told to stop.

    The result is equal in all processes that train together.
    """
    for call in calls(times, context, begun):
        if multihost.any_of(stopped()):
            return
        program = context.programs.program(call.kind, call.stage, *call.args).footprint
        if program is None:
            return
        yield need_of(call, program, times, context)


def need_of(call: Call, program: memory.Footprint, times: Timetable, context: Compute) -> Need:
    """The memory of a program that was compiled for a call of `calls`."""
    strategy, count = context.programs.strategy_of(call.kind), len(times.group.runs)
    devices, ways = run_axis.layout(strategy, count)
    compiled_for = 1 if strategy == "loop" else -(-count // (len(devices) // ways))
    # Includes rows and other small arrays; at the start of a stage only its inputs are in memory.
    states, fixed = context.states_like(times.group), of_images(context, times, call)
    rows, held = compiled_for, memory.size((states, states.params, call.args[1])) // count
    if call.kind == "begin":  # one run after another: there is one row, besides the states of all
        strategy, rows, held = "loop" if strategy == "loop" else "map", 1, memory.size(states) // count
        fixed += memory.size(call.args[1]) // count
    # A TPU stores arrays in tiles, which are padded where an axis is short.
    of_one = [memory.size(part) // count for part in call.args[:2]]
    plain = _on_one(call, times, context) + of_one[0] * compiled_for + of_one[1] * rows
    unused = max(0, program.arguments - plain) // compiled_for
    line = memory.line(program, strategy, compiled_for, fixed, held + unused)
    mapped = memory.sequential(line, program, compiled_for) if strategy in memory.SIDE_BY_SIDE else line
    return Need(times.group.name, call.kind, count, line, mapped)


def calls(times: Timetable, context: Compute, begun: bool = False) -> Iterator[Call]:
    """Every program that a group uses; without `begin` if the group has `begun`."""
    states = context.states_like(times.group)
    stage, due, span = times.group.stage, np.ones(len(times.group.runs), np.bool_), (np.int32(0), np.int32(1))
    runs = np.arange(len(times.group.runs))
    if not begun:
        data = (windows.beginning(context, times).window.like(),) if apply.acts_at_start(stage) else ()
        yield Call("begin", stage, (*_beginning(times, states, context), *data))
    rows = schedule.tasks(times, context.slots, states), np.zeros(len(times.group.runs), np.int32)
    yield Call("advance", stage, (states, rows, windows.training(context, times, runs).window.like()))
    evaluated = evaluation.looked_at(states)
    for scored in scored_on(times, context.study, context.slots).values():
        images = windows.scoring(context, scored, runs).window.like()
        if scored.own:
            yield Call("evaluate_own", None, (evaluated, (due, scored.source), span, images))
        else:
            yield Call("evaluate", None, (evaluated, due, scored.source, span, images))
    if context.programs.diagnostics:
        looked_at = due, (states.params, probes(times))
        shown = [look.window.like() for look in windows.diagnosing(context, times, runs)]
        yield Call("diagnose", None, (evaluated, looked_at, *shown))
    if instruments.are_to_measure(times.group, context):
        looks = instruments.rows(times, context, rows[0], states.params, states.params)
        memories = instruments.memories(context, times, states.params)
        images = windows.measuring(context, times).looking.window.like()
        for name in context.programs.instruments:
            row = looks._replace(memory=memories.get(name, ()))
            yield Call(f"measure {name}", stage, (states, row, images))


def _beginning(times: Timetable, states: TrainState, context: Compute) -> tuple[Tree, tuple[Start, Parent, Tree]]:
    """The shapes of the arguments of the program `begin`."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), states)
    factors = run_axis.stack_on_host([resets.factors(run.stage.reset, one) for run in times.group.runs])
    start = Start(states.params, states.stats, factors)
    if times.group.stage.remedies:
        task = schedule.tasks(times, context.slots)
        start = start._replace(initial=states.params, task=task._replace(key=jax.random.key_data(task.key)))
    given = np.ones(len(times.group.runs), np.bool_)
    return states, (start, (states.params, states.stats, states.opt), given)


def _refusal(worst: Need, needs: Sequence[Need], available: int, context: Compute) -> str:
    """The error message: what does not fit, how many runs and seeds do, and what else helps."""
    strategy, seeds = context.programs.strategy, len(context.study.seeds)
    of_stage = [need for need in needs if need.stage == worst.stage]

    def fits(count: int) -> bool:
        return all(need.total(count, strategy) <= available for need in of_stage)

    def seeds_fit(count: int) -> bool:
        return all(need.total(need.runs // seeds * count, strategy) <= available for need in needs)

    most = next((count for count in range(worst.runs - 1, 0, -1) if fits(count)), 0)
    most_seeds = next((count for count in range(seeds - 1, 0, -1) if seeds_fit(count)), 0)
    remedies = [SMALLER[worst.kind.partition(" ")[0]]]
    if context.in_windows and worst.kind == "begin":
        remedies = ["no remedy that looks at all training images at once (dash)"]
    mapped = max(need.total(need.runs, "map") for need in needs)
    if strategy in memory.SIDE_BY_SIDE and mapped <= available:
        remedies.insert(0, f"--config.strategy=map (about {memory.text(mapped)})")
    if not context.in_windows:
        on_host, times = prepare.taking(context, context.choice | {"images": "host"}), context.timetables[worst.stage]
        saved = of_images(context, times) - of_images(on_host, times)
        if worst.total(worst.runs, strategy) - saved <= available:
            remedies.insert(0, "--config.images=host")
    if most_seeds:
        remedies.insert(0, f"at most {most_seeds} of {seeds} seeds")
    elif most:
        remedies.insert(0, "fewer branches or grid points")
    need = f"{worst.runs} runs need {memory.text(worst.total(worst.runs, strategy))} of memory"
    would = f"{most} would fit" if most else "not even one would fit"
    return (
        f"stage {worst.stage}: {need} ({memory.text(worst.line.per_run)} each) and there are {memory.text(available)}, "
        f"so {would}; take {', or '.join(remedies)}"
    )


def free(devices: Sequence[jax.Device] = ()) -> int | None:
    """Bytes free on the device with the least, of these or else all, over all processes; None if unknown."""
    counts = [memory.free(device) for device in devices or target.local_devices()]
    reported = [count for count in counts if count is not None]
    least = multihost.least(min(reported) if len(reported) == len(counts) else -1)
    return None if least < 0 else least


def of_images(context: Compute, times: Timetable, call: Call | None = None) -> int:
    """Bytes of images on one device while a group trains, or while it calls a program.

    If images are sent in windows, these are the bytes of `windows.AT_ONCE` windows.
    """
    if not context.in_windows:
        return memory.size((context.images, context.test_images))
    groups = run_axis.groups_for(context.programs.strategy, len(times.group.runs))
    trained = windows.training(context, times, np.arange(len(times.group.runs))).window.like()
    if call is None or call.kind == "advance":
        return windows.AT_ONCE * memory.size(trained) // groups
    other = windows.AT_ONCE * sum(_part(arg, times, context, call.kind) for arg in call.args[2:] if _is_window(arg))
    return other + (0 if call.kind == "begin" else windows.AT_ONCE * memory.size(trained) // groups)


def _on_one(call: Call, times: Timetable, context: Compute) -> int:
    """Bytes on one device of the arrays that the runs of a program share."""
    return sum(_part(arg, times, context, call.kind) for arg in call.args[2:])


def _part(shared: Tree, times: Timetable, context: Compute, kind: str) -> int:
    groups = run_axis.groups_for(context.programs.strategy_of(kind), len(times.group.runs))
    return memory.size(shared) // (groups if _is_window(shared) else 1)


def _is_window(shared: Tree) -> bool:
    return isinstance(shared, Images) and not shared.whole
