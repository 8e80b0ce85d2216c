"""Windows: the part of a data set that is sent to the devices when not all images are stored there.

A window is an array on each group of devices that trains some of the runs.  It holds the images that these runs read in
the next steps or batches, each image once.  Programs differ from those for a whole data set in one look-up of indices
only, so all results are the same.  If the whole data set is stored on the devices, every window is the whole data set.
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

AT_ONCE = 3  # windows on a device: of the running call, of the queued one, and of the one after it
BYTES, BYTES_ON_CPU = 2**28, 2**25  # of one window, unless a single step reads more
Indices = Callable[[np.ndarray], np.ndarray]  # rows of a group -> indices of images, in any order


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """The size of the windows of `count` runs, which a strategy distributes over groups of devices.

    images: all of them, on the host.
    room: images that fit in the window of one group; 0 if all images are stored on the devices.
    """

    images: Images
    room: int
    strategy: str
    count: int

    def like(self) -> Images:
        """The argument of the programs, as shapes and dtypes."""
        if not self.room:
            return self.images
        groups, image = run_axis.groups_for(self.strategy, self.count), self.images.images.shape
        pixels = jax.ShapeDtypeStruct((groups * self.room, *image[1:]), np.uint8)
        return self.images.replace(images=pixels, where=jax.ShapeDtypeStruct((groups * image[0],), np.int32))

    def filled(self, wanted: Indices) -> Images:
        """The argument of the programs, holding the images that each group needs.

        A process reads only the images of its own devices.
        """
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
    """Writes the images at the `chosen` indices into `pixels`, in this order, and their positions into `where`."""
    where[chosen] = np.arange(len(chosen))
    if isinstance(every, np.ndarray):
        np.take(every, chosen, axis=0, out=pixels[: len(chosen)], mode="clip")
    else:
        pixels[: len(chosen)] = every[chosen]


def only(images: Images, indices: np.ndarray, room: int = 0) -> Images:
    """A window on the host with the images at these indices, padded to `room`; all images if they are in memory."""
    if isinstance(images.images, np.ndarray):
        return images
    chosen = np.unique(indices)
    pixels = np.zeros((max(room, len(chosen)), *images.images.shape[1:]), np.uint8)
    where = np.zeros(len(images.images), np.int32)
    _fill(images.images, chosen, pixels, where)
    return images.replace(images=pixels, where=where)


def rows_of_groups(strategy: str, count: int) -> list[np.ndarray]:
    """The rows of `count` runs on each group of devices; rows of padding repeat the last run."""
    rows, groups = run_axis.rows_for(strategy, count), run_axis.groups_for(strategy, count)
    return np.split(np.minimum(np.arange(rows), count - 1), groups)


def _here(strategy: str, count: int) -> list[int]:
    """The indices of the groups that contain a device of this process."""
    groups = run_axis.mesh_for(strategy, count).devices
    own = jax.process_index() if not multihost.alone() else 0
    return [i for i, devices in enumerate(groups) if any(device.process_index == own for device in devices)]


def budget(image: Images) -> int:
    """The largest number of images in one window."""
    most = BYTES_ON_CPU if target.backend() == "cpu" else BYTES
    return max(1, most // int(np.prod(image.images.shape[1:])))


def union(parts: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """The sorted union of the parts of these rows."""
    return np.unique(np.concatenate([parts[row] for row in np.unique(rows)]))


def most_of(strategy: str, count: int, need: Callable[[np.ndarray], int]) -> int:
    """The largest value of `need(rows)` over the groups of devices."""
    return max(need(rows) for rows in rows_of_groups(strategy, count))


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """The windows that runs train on; each holds the images of the next `steps` steps of every run.

    pools: whether one window holds all training images of the runs.
    """

    window: Window
    steps: int
    ahead: Sequence[Ahead] = ()
    pools: bool = False

    def filled(self, first: np.ndarray) -> Images:
        """The window for the steps that begin at `first` [A], one entry per active run."""

        def wanted(rows: np.ndarray) -> np.ndarray:
            alike = {(self.ahead[row].identity, int(first[row])): self.ahead[row] for row in rows}
            if self.pools:
                return np.concatenate([ahead.pool for ahead in alike.values()])
            return np.concatenate([ahead.looked_at(start, start + self.steps) for (_, start), ahead in alike.items()])

        return self.window.filled(wanted)


def training(compute: Compute, times: Timetable, runs: np.ndarray) -> Training:
    """The windows that these runs of a group train on."""
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
    """Images for timing the training of a group: all, or one window whose images stand in for all others."""
    window, every = training(compute, times, np.arange(len(times.group.runs))).window, compute.images.images
    if not window.room:
        return compute.images
    groups = run_axis.groups_for(window.strategy, window.count)
    pixels, where = every[: window.room], np.arange(len(every), dtype=np.int32) % window.room
    sent = compute.images.replace(images=np.concatenate([pixels] * groups), where=np.tile(where, groups))
    return run_axis.deal(sent, window.strategy, window.count)


def of_steps(compute: Compute, times: Timetable, runs: np.ndarray) -> list[Ahead]:
    """The images that each step of these runs reads."""
    rows = run_axis.apart(run_axis.take(schedule.tasks(times, compute.slots), runs))
    return [Ahead(row, times.group.stage) for row in rows]


@dataclasses.dataclass(frozen=True, eq=False)
class Scoring:
    """The windows that runs are evaluated on, each of `batches` batches.  order: the image indices of each run."""

    window: Window
    batches: int
    size: int
    order: Sequence[np.ndarray] = ()

    def filled(self, first: int, last: int) -> Images:
        """The window for the batches `first` to `last` - 1."""
        slots = slice(first * self.size, last * self.size)
        # A run with fewer images is padded with its last one.
        parts = [np.concatenate([order[slots], order[-1:]]) for order in self.order]
        return self.window.filled(functools.partial(union, parts))


def scoring(compute: Compute, scored: Scored, runs: np.ndarray) -> Scoring:
    """The windows that these runs of a group are evaluated on."""
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
    """A window with fixed images for each run, and optionally further images per call."""

    window: Window
    parts: Sequence[np.ndarray] = ()

    def filled(self, more: Sequence[np.ndarray] = ()) -> Images:
        """The window; `more` are the further image indices of each run."""
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
    """The window for a kind of program that reads fixed images of its `count` runs.

    Args:
      parts: gives the image indices of each run; called only if windows are used.
      kind: of program, which decides the strategy.
      more: the number of further images of each run.
    """
    strategy = compute.programs.strategy_of(kind)
    if not compute.in_windows:
        return Looking(Window(images, 0, strategy, count))
    listed = parts()
    room = most_of(strategy, count, lambda rows: len(union(listed, rows)) + more * len(rows))
    return Looking(Window(images, min(room, len(images.images)), strategy, count), listed)


def diagnosing(compute: Compute, times: Timetable, runs: np.ndarray) -> tuple[Looking, Looking]:
    """The windows of the training and of the test images that diagnostics read."""
    shown = probes(times)

    def look(images: Images, side: str) -> Looking:
        return looking(compute, images, lambda: list(shown[side].index[runs]), len(runs))

    return look(compute.images, "train"), look(compute.test_images, "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Measuring:
    """The window of instruments: their images of each run, and those of the next step, which some instruments take."""

    looking: Looking
    ahead: Sequence[Ahead]

    def filled(self, steps: np.ndarray) -> Images:
        """The window for runs at these steps [R]."""
        following = zip(self.ahead, steps.tolist(), strict=True) if self.ahead else []
        return self.looking.filled([ahead.looked_at(step, step + 1) for ahead, step in following])


def measuring(compute: Compute, times: Timetable) -> Measuring:
    """The window of the instruments of a group."""
    runs = np.arange(len(times.group.runs))
    ahead = of_steps(compute, times, runs) if compute.in_windows else []
    kept = compute.timetables, compute.study.measure_images

    def parts() -> list[np.ndarray]:
        return [part.index for part in instruments.probes(times, *kept)]

    most = max((each.most for each in ahead), default=0)
    return Measuring(looking(compute, compute.images, parts, len(runs), "measure", most), ahead)


def beginning(compute: Compute, times: Timetable) -> Looking:
    """The window of remedies at the start of a stage: all training images of its runs."""
    return looking(compute, compute.images, lambda: [pool.indices for pool in times.pools], len(times.group.runs))
