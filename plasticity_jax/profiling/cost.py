"""The cost of a part of a pack on this machine: images by counting, memory and speed by measuring a small unit.

The unit is one point of the grid and one seed (on a CPU as many seeds as it takes to use all its devices).  Its
programs are compiled once, and XLA's account of their memory is extrapolated linearly in the number of runs.  The
training program is timed briefly, as with `--autotune`.  Times exclude evaluation, checkpoints and compilation.
"""

import contextlib
import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from plasticity_jax import target
from plasticity_jax.config import spec
from plasticity_jax.config.plan import unfold
from plasticity_jax.data import datasets, stand_ins, subsets
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.errors import LabError
from plasticity_jax.parallel import compilation_cache, cpu, memory, run_axis
from plasticity_jax.profiling import autotune, memory_check
from plasticity_jax.runner import prepare, schedule, windows
from plasticity_jax.runner.context import Compute
from plasticity_jax.runner.parts import complete
from plasticity_jax.storage import conditions

ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Part:
    """Some points of a pack, for one seed: runs and training images by group, and `finals`, the number of final runs.

    For several seeds multiply all numbers by the number of seeds.
    """

    runs: Mapping[str, int]
    images: Mapping[str, int]
    finals: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """The measurements of a pack.

    needs: memory of every program.  rates: images/s by group; None if not measured.
    model, strategy: the model's name, and the strategy in the study's config.
    """

    needs: tuple[memory_check.Need, ...]
    rates: Mapping[str, float] | None
    model: str
    strategy: str

    def bytes(self, part: Part, seeds: int) -> int | None:
        """Largest memory on a device, in bytes, for a part with `seeds` seeds; None if XLA does not report it."""
        strategy = run_axis.choose(self.strategy, self.model, seeds * max(part.runs.values()))
        return max((need.total(seeds * part.runs[need.stage], strategy) for need in self.needs), default=None)

    def seconds(self, part: Part, seeds: int) -> float | None:
        """Expected time to train a part with `seeds` seeds, in seconds; None if not measured."""
        if self.rates is None:
            return None
        return seeds * sum(count / self.rates[group] for group, count in part.images.items())


@contextlib.contextmanager
def begin(compile_for: str = "") -> Iterator[None]:
    """Context for measuring; enter it before jax computes anything in this process.

    `compile_for` names described devices (`target.described`), for which memory is known, but no time.

    Raises:
      LabError: jax finds no device, or cannot compile for the described ones.
    """
    with target.described(compile_for) if compile_for else contextlib.nullcontext():
        cpu.use_all_cores()
        cpu.start_jax()
        cpu.use_one_lapack_thread()
        if not compile_for:
            compilation_cache.turn_on()
        yield


def load(*data: Any) -> Dataset:
    """The data set of `study.data`; for described devices a stand-in of the same size."""
    return (stand_ins.load if target.is_described() else datasets.load)(*data)


def free() -> int | None:
    """Bytes of free memory on the local device with the least; None if no device reports it."""
    counts = [count for device in target.local_devices() if (count := memory.free(device)) is not None]
    return min(counts, default=None)


def count(pack: spec.Pack, study: spec.Study, dataset: Dataset) -> Part:
    """The runs and images of a pack for its first seed; other seeds may differ by a batch."""
    seed, runs_of, shown = study.seeds[0], {}, {}
    finals = 0
    for group in unfold(pack, (seed,)):
        runs_of[group.name], shown[group.name] = len(group.runs), 0
        for run in group.runs:
            size = _pool_size(run.stage.data, seed, dataset, study.train_images, study.validation_images)
            shown[group.name] += schedule.lengths(run.stage, size)[1] * run.stage.batch_size
            finals += run.final
    return Part(runs_of, shown, finals)


@functools.cache
def _pool_size(data: spec.Data, seed: int, dataset: Dataset, train_images: int, validation_images: int) -> int:
    span = dataset.span(data.member)
    pool = subsets.pool(data, seed, dataset.train_labels, dataset.classes, train_images, validation_images, span)
    return len(pool.indices)


def shape(pack: spec.Pack, study: spec.Study) -> Any:
    """A hashable key: packs with equal keys can share one measurement."""
    rest = dataclasses.replace(study, name="", seeds=(), packs=(), control="", window=0.5, checkpoint_seconds=0.0)
    groups = unfold(dataclasses.replace(pack, plans=pack.plans[:1]), study.seeds[:1])
    programs = tuple((group.name, len(group.runs), tuple(group.stage.shape().items())) for group in groups)
    return rest, pack.model, programs


def measure(
    pack: spec.Pack, study: spec.Study, dataset: Dataset, say: Callable[[str], None], time_it: bool = True
) -> Cost:
    """Compiles the programs of a pack's unit, and times those that train; `say` reports progress.

    Raises:
      LabError: the unit cannot be trained on this machine.
    """
    with conditions.pinned(study.matmul_precision):
        return _measure(pack, study, dataset, say, time_it)


def _measure(pack: spec.Pack, study: spec.Study, dataset: Dataset, say: Callable[[str], None], time_it: bool) -> Cost:
    context = _unit(dataclasses.replace(pack, plans=pack.plans[:1]), study, dataset)
    say("compiling")
    needs = tuple(need for times in context.timetables.values() for need in memory_check.needs_of(times, context))
    time_it = time_it and not target.is_described()
    rates: dict[str, float] = {}
    for groups in autotune.alike(context.timetables.values()) if time_it else []:
        names = [times.group.name for times in groups]
        say(f"timing {'+'.join(names)}")
        task, first = autotune.start(context, groups[0])
        images = windows.sample(context, groups[0])
        lane = functools.partial(autotune.train_moment, context.programs, groups[0], task, first, images)
        try:
            steps, _ = autotune.look(lane)
            timed = [lane(steps) for _ in range(ROUNDS)]
        except Exception as error:  # whatever XLA raises where memory or a kernel is missing
            raise LabError(f"cannot time stage {names[0]} here: {' '.join(str(error).split())[:200]}") from error
        rates |= dict.fromkeys(names, statistics.median(shown / seconds for shown, seconds in timed))
    return Cost(needs, rates if time_it else None, pack.model.name, study.strategy)


def _unit(pack: spec.Pack, study: spec.Study, dataset: Dataset) -> Compute:
    """The unit that is measured: the first grid point, with as many seeds as there are devices to fill."""
    widest = max(len(group.runs) for group in unfold(pack, study.seeds))
    strategy = run_axis.choose(study.strategy, pack.model.name, widest)
    devices, ways = run_axis.layout(strategy, widest)
    few = dataclasses.replace(study, seeds=study.seeds[: len(devices) // ways], strategy=strategy)
    drawn = prepare.compute(pack, few, dataset, complete(None, study))
    memory_check.check_images(drawn)
    return drawn
