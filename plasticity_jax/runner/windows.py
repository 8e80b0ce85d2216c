"""Images that do not all lie on the devices: which of them are sent there, and the arrays that hold them.

A window is an array for some images of a data set on each group of devices that runs are dealt out to: all that its
runs look at in some steps or batches to come, each image once.  The programs are those for images that are all there,
but for one look-up; so every number is the same.  Of a data set that is there as a whole all of this gives the whole.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from plasticity_jax import target
from plasticity_jax.data.records import Pixels
from plasticity_jax.parallel import multihost, run_axis
from plasticity_jax.runner import instruments, schedule
from plasticity_jax.runner.context import Compute
from plasticity_jax.runner.eval_sets import Scored, probes
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.training.ahead import Ahead
from plasticity_jax.training.inputs import Images

AT_ONCE = 3  # windows on a device: of the call at work, of the one that waits for it, and of the one to come
BYTES, BYTES_ON_CPU = 2**28, 2**25  # of one window, unless one step looks at more
Indices = Callable[[np.ndarray], np.ndarray]  # of a group's rows -> of images, in any order


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """Room for so many of the images on each group of devices that `count` runs are dealt out to by a strategy.

    images: all of them, on the host.  room: 0 where they all lie on the devices.
    """

    images: Images
    room: int
    strategy: str
    count: int

    def like(self) -> Images:
        """What programs are given, as shapes."""
        if not self.room:
            return self.images
        groups, image = run_axis.groups_for(self.strategy, self.count), self.images.images.shape
        pixels = jax.ShapeDtypeStruct((groups * self.room, *image[1:]), np.uint8)
        return self.images.replace(images=pixels, where=jax.ShapeDtypeStruct((groups * image[0],), np.int32))

    def filled(self, wanted: Indices) -> Images:
        """What programs are given, with the images that each group wants; a process reads those of its own devices."""
        if not self.room:
            return self.images
        every, rows = self.images.images, rows_of_groups(self.strategy, self.count)
        pixels = np.empty((len(rows) * self.room, *every.shape[1:]), np.uint8)
        where = np.zeros((len(rows), len(every)), np.int32)
        for number in _here(self.strategy, self.count):
            _fill(every, np.unique(wanted(rows[number])), pixels[number * self.room :][: self.room], where[number])
        sent = self.images.replace(images=pixels, where=where.reshape(-1))
        return run_axis.deal(sent, self.strategy, self.count)


def _fill(every: Pixels, chosen: np.ndarray, pixels: np.ndarray, where: np.ndarray) -> None:
    """Write the images at the `chosen` indices one after another into `pixels`, and `where` they are."""
    where[chosen] = np.arange(len(chosen))
    if isinstance(every, np.ndarray):
        np.take(every, chosen, axis=0, out=pixels[: len(chosen)], mode="clip")
    else:
        pixels[: len(chosen)] = every[chosen]


def only(images: Images, indices: np.ndarray, room: int = 0) -> Images:
    """A window, on the host, of the images at these indices, with room for so many; of arrays all of them."""
    if isinstance(images.images, np.ndarray):
        return images
    chosen = np.unique(indices)
    pixels = np.zeros((max(room, len(chosen)), *images.images.shape[1:]), np.uint8)
    where = np.zeros(len(images.images), np.int32)
    _fill(images.images, chosen, pixels, where)
    return images.replace(images=pixels, where=where)


def rows_of_groups(strategy: str, count: int) -> list[np.ndarray]:
    """The rows of each group of devices among `count` runs; those that make shares equal repeat the last one."""
    rows, groups = run_axis.rows_for(strategy, count), run_axis.groups_for(strategy, count)
    return np.split(np.minimum(np.arange(rows), count - 1), groups)


def _here(strategy: str, count: int) -> list[int]:
    """The groups that have a device of this process."""
    groups = run_axis.mesh_for(strategy, count).devices
    own = jax.process_index() if not multihost.alone() else 0
    return [i for i, devices in enumerate(groups) if any(device.process_index == own for device in devices)]


def budget(image: Images) -> int:
    """How many images one window may hold."""
    most = BYTES_ON_CPU if target.backend() == "cpu" else BYTES
    return max(1, most // int(np.prod(image.images.shape[1:])))


def union(parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """What stands in the parts of these rows."""
    return np.unique(np.concatenate([parts[row] for row in np.unique(rows)]))


def most_of(strategy: str, count: int, need: Callable[[np.ndarray], int]) -> int:
    """The largest need of a group, given by its rows."""
    return max(need(rows) for rows in rows_of_groups(strategy, count))


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """The windows that runs train on, each good for `steps` steps of every run from where it stands.

    pools: whether one window holds all that they train on.
    """

    window: Window
    steps: int
    ahead: Sequence[Ahead] = ()
    pools: bool = False

    def filled(self, first: np.ndarray) -> Images:
        """The window for the steps from `first` [A] on."""

        def wanted(rows: np.ndarray) -> np.ndarray:
            alike = {(self.ahead[row].identity, int(first[row])): self.ahead[row] for row in rows}
            if self.pools:
                return np.concatenate([ahead.pool for ahead in alike.values()])
            return np.concatenate([ahead.looked_at(start, start + self.steps) for (_, start), ahead in alike.items()])

        return self.window.filled(wanted)


def training(compute: Compute, times: Timetable, runs: np.ndarray) -> Training:
    """What these runs of a group train on."""
    strategy, count, longest = compute.programs.strategy, len(runs), max(times.steps)
    if not compute.in_windows:
        return Training(Window(compute.images, 0, strategy, count), longest)
    ahead = of_steps(compute, times, runs)

    def of(rows: np.ndarray, what: str) -> int:
        return sum({each.identity: getattr(each, what) for each in map(ahead.__getitem__, rows)}.values())

    pools = min(most_of(strategy, count, lambda rows: of(rows, "size")), len(times.dataset.train_labels))
    step, room = most_of(strategy, count, lambda rows: of(rows, "most")), budget(compute.images)
    if pools <= room:
        return Training(Window(compute.images, pools, strategy, count), longest, ahead, True)
    steps = max(1, room // step)
    return Training(Window(compute.images, min(pools, steps * step), strategy, count), steps, ahead)


def sample(compute: Compute, times: Timetable) -> Images:
    """Images to time the training of a group on: all, or one window in which some images stand for all others."""
    window, every = training(compute, times, np.arange(len(times.group.runs))).window, compute.images.images
    if not window.room:
        return compute.images
    groups = run_axis.groups_for(window.strategy, window.count)
    pixels, where = every[: window.room], np.arange(len(every), dtype=np.int32) % window.room
    sent = compute.images.replace(images=np.concatenate([pixels] * groups), where=np.tile(where, groups))
    return run_axis.deal(sent, window.strategy, window.count)


def of_steps(compute: Compute, times: Timetable, runs: np.ndarray) -> list[Ahead]:
    """What the steps of these runs look at."""
    rows = run_axis.apart(run_axis.take(schedule.tasks(times, compute.slots), runs))
    return [Ahead(row, times.group.stage) for row in rows]


@dataclasses.dataclass(frozen=True, eq=False)
class Scoring:
    """The windows that runs are scored on, each good for `batches` batches; `order` are the images of each run."""

    window: Window
    batches: int
    size: int
    order: Sequence[np.ndarray] = ()

    def filled(self, first: int, last: int) -> Images:
        """The window for the batches first .. last."""
        slots = slice(first * self.size, last * self.size)
        # Behind its end a run's last image stands in.
        parts = [np.concatenate([order[slots], order[-1:]]) for order in self.order]
        return self.window.filled(functools.partial(union, parts))


def scoring(compute: Compute, scored: Scored, runs: np.ndarray) -> Scoring:
    """What these runs of a group are scored on."""
    images = compute.images if scored.split == "train" else compute.test_images
    strategy, count, size = compute.programs.strategy, len(runs), compute.programs.eval_batch
    end, source = -(-scored.length // size), scored.source
    if not compute.in_windows:
        return Scoring(Window(images, 0, strategy, count), end, size)
    pools = zip(source.indices[runs], source.size[runs], strict=True) if scored.own else [(source.indices, source.size)]
    order = [indices[: int(length)] for indices, length in pools]
    order = order if scored.own else order * count
    apart = most_of(strategy, count, lambda rows: len({order[row].tobytes() for row in rows}))
    batches = min(end, max(1, budget(images) // (apart * size)))
    room = min(apart * (batches * size + 1), len(images.images))
    return Scoring(Window(images, room, strategy, count), batches, size, order)


@dataclasses.dataclass(frozen=True, eq=False)
class Looking:
    """A window for the same images of each run every time, and for `more` of them."""

    window: Window
    parts: Sequence[np.ndarray] = ()

    def filled(self, more: Sequence[np.ndarray] = ()) -> Images:
        """The window; `more` are further images of each run."""
        parts = [np.concatenate(both) for both in zip(self.parts, more, strict=True)] if more else self.parts
        return self.window.filled(functools.partial(union, parts))


def looking(
    compute: Compute,
    images: Images,
    parts: Callable[[], Sequence[np.ndarray]],
    count: int,
    kind: str = "",
    more: int = 0,
) -> Looking:
    """What a `kind` of program looks at by the `parts` of its `count` runs, and `more` images of each."""
    strategy = compute.programs.strategy_of(kind)
    if not compute.in_windows:
        return Looking(Window(images, 0, strategy, count))
    listed = parts()
    room = most_of(strategy, count, lambda rows: len(union(listed, rows)) + more * len(rows))
    return Looking(Window(images, min(room, len(images.images)), strategy, count), listed)


def diagnosing(compute: Compute, times: Timetable, runs: np.ndarray) -> tuple[Looking, Looking]:
    """What diagnostics look at of the training and of the test images."""
    shown = probes(times)

    def look(images: Images, side: str) -> Looking:
        return looking(compute, images, lambda: list(shown[side].index[runs]), len(runs))

    return look(compute.images, "train"), look(compute.test_images, "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Measuring:
    """The window of instruments: what they look at of each run, and what the step to come does, which they may take."""

    looking: Looking
    ahead: Sequence[Ahead]

    def filled(self, steps: np.ndarray) -> Images:
        """The window for runs at these steps [R]."""
        following = zip(self.ahead, steps.tolist(), strict=True) if self.ahead else []
        return self.looking.filled([ahead.looked_at(step, step + 1) for ahead, step in following])


def measuring(compute: Compute, times: Timetable) -> Measuring:
    """What instruments look at of a group."""
    runs = np.arange(len(times.group.runs))
    ahead = of_steps(compute, times, runs) if compute.in_windows else []
    kept = compute.timetables, compute.study.measure_images

    def parts() -> list[np.ndarray]:
        return [part.index for part in instruments.probes(times, *kept)]

    most = max((each.most for each in ahead), default=0)
    return Measuring(looking(compute, compute.images, parts, len(runs), "measure", most), ahead)


def beginning(compute: Compute, times: Timetable) -> Looking:
    """What remedies look at where a stage begins: all that its runs train on."""
    return looking(compute, compute.images, lambda: [pool.indices for pool in times.pools], len(times.group.runs))
