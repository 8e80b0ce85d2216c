"""What a part of a pack costs on this machine: images counted; memory and speed measured of its smallest unit.

The unit is one point of the grid and one seed (on a CPU as many seeds as it takes to fill its devices).  Its programs
are compiled once, XLA says what they need, and lines in the number of runs extend that to any part of the pack.  The
program that trains runs for moments, as with `--autotune`.  Evaluation, checkpoints and compiling are not in the time.
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
from plasticity_jax.runner import prepare, schedule
from plasticity_jax.runner.context import Compute
from plasticity_jax.runner.parts import complete
from plasticity_jax.storage import conditions

ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Part:
    """Some points of a pack, for one seed: by group the runs and the training images; `finals` are the runs that count.

    Parts of several seeds have as many times as much of everything.
    """

    runs: Mapping[str, int]
    images: Mapping[str, int]
    finals: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What was measured of a pack.

    needs: of every program.  rates: images/s by group, None if they were not measured.
    model, strategy: the model's name, and the strategy that the study asks for.
    """

    needs: tuple[memory_check.Need, ...]
    rates: Mapping[str, float] | None
    model: str
    strategy: str

    def bytes(self, part: Part, seeds: int) -> int | None:
        """Memory on the device with the most, for a part with so many seeds; None if XLA does not tell."""
        strategy = run_axis.choose(self.strategy, self.model, seeds * max(part.runs.values()))
        return max((need.total(seeds * part.runs[need.stage], strategy) for need in self.needs), default=None)

    def seconds(self, part: Part, seeds: int) -> float | None:
        """Expected time to train a part with so many seeds."""
        if self.rates is None:
            return None
        return seeds * sum(count / self.rates[group] for group, count in part.images.items())


@contextlib.contextmanager
def begin(compile_for: str = "") -> Iterator[None]:
    """Inside, this process measures; jax has computed nothing in it yet.

    `compile_for` names devices that need not be there (`target.described`), which have memory but no time.

    Raises:
      LabError: jax finds no device, or cannot compile for those that are named.
    """
    with target.described(compile_for) if compile_for else contextlib.nullcontext():
        cpu.use_all_cores()
        cpu.start_jax()
        cpu.use_one_lapack_thread()
        if not compile_for:
            compilation_cache.turn_on()
        yield


def load(*data: Any) -> Dataset:
    """The data set of `study.data`, or one of its size for devices on which nothing is computed."""
    return (stand_ins.load if target.is_described() else datasets.load)(*data)


def free() -> int | None:
    """Bytes of memory that the device of this machine has left; None if it does not tell."""
    known = [count for device in target.local_devices() if (count := memory.free(device)) is not None]
    return min(known, default=None)


def count(pack: spec.Pack, study: spec.Study, dataset: Dataset) -> Part:
    """The runs and images of a pack for one seed; those of other seeds may differ by a batch."""
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
    """What packs have in common if one measurement is good for all: hashable."""
    rest = dataclasses.replace(study, name="", seeds=(), packs=(), control="", window=0.5, checkpoint_seconds=0.0)
    groups = unfold(dataclasses.replace(pack, plans=pack.plans[:1]), study.seeds[:1])
    programs = tuple((group.name, len(group.runs), tuple(group.stage.shape().items())) for group in groups)
    return rest, pack.model, programs


def measure(
    pack: spec.Pack, study: spec.Study, dataset: Dataset, say: Callable[[str], None], time_it: bool = True
) -> Cost:
    """Compile the programs of a pack's unit, and time those that train; `say` hears what is being done.

    Raises:
      LabError: the unit cannot be trained here.
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
        lane = functools.partial(autotune.train_moment, context.programs, groups[0], task, first, context.images)
        try:
            steps, _ = autotune.look(lane)
            timed = [lane(steps) for _ in range(ROUNDS)]
        except Exception as error:  # whatever XLA raises where memory or a kernel is missing
            raise LabError(f"cannot time stage {names[0]} here: {' '.join(str(error).split())[:200]}") from error
        rates |= dict.fromkeys(names, statistics.median(shown / seconds for shown, seconds in timed))
    return Cost(needs, rates if time_it else None, pack.model.name, study.strategy)


def _unit(pack: spec.Pack, study: spec.Study, dataset: Dataset) -> Compute:
    """The smallest part of a pack."""
    memory_check.check_images(dataset)
    widest = max(len(group.runs) for group in unfold(pack, study.seeds))
    strategy = run_axis.choose(study.strategy, pack.model.name, widest)
    devices, ways = run_axis.layout(strategy, widest)
    few = dataclasses.replace(study, seeds=study.seeds[: len(devices) // ways], strategy=strategy)
    return prepare.compute(pack, few, dataset, complete(None, study))
