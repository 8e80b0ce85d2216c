"""From the studies of a sweep to its jobs: as few as fit into memory and time.  Pure; prices come from outside.

All that changes no shape rides the run axis: a pack is one job, if that fits.  Else its seeds are dealt out over
several jobs, since seeds share nothing; and only where a single seed does not fit, its grid points too, each job then
with a pretraining of its own.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ml_collections import ConfigDict

from plasticity_jax import study_config
from plasticity_jax.config import names, spec
from plasticity_jax.errors import ConfigError, RoomError
from plasticity_jax.launch import jobs, naming

TAKEN = ("sweep.json", "slurm", "xm")  # what launchers make in the directory of a sweep
Rectangle = tuple[tuple[int, ...], tuple[int, ...]]  # points and seeds: all of one with all of the other


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a job may take: bytes of memory, seconds, runs; None for as much as it likes."""

    memory: int | None = None
    seconds: float | None = None
    runs: int | None = None


@dataclasses.dataclass(frozen=True)
class Price:
    """What a job takes: runs that come out, training images, seconds and bytes (None if unknown)."""

    runs: int
    images: int
    seconds: float | None
    bytes: int | None


class Market(Protocol):
    """Tells what `seeds` seeds of some points of a pack cost."""

    def __call__(self, key: str, pack: spec.Pack, points: tuple[int, ...], seeds: int) -> Price: ...


def studies(config: ConfigDict) -> dict[str, spec.Study]:
    """The studies of a sweep config by their keys; a lone study goes by its name.

    Raises:
      ConfigError: a study that is none, or a key that cannot name a directory.
    """
    if "studies" not in config:
        study = study_config.parse(config)
        key = names.safe(study.name or "study")[: names.LONGEST]
        return {f"_{key}" if key in TAKEN else key: study}
    if list(config) != ["studies"] or not isinstance(config.studies, (ConfigDict, Mapping)) or not config.studies:
        raise ConfigError("config.studies: a sweep has this key alone, a group of studies by name")
    parsed = {}
    for key, config_of in config.studies.items():
        names.check(key, f"config.studies.{key}")
        if key in TAKEN:
            raise ConfigError(f"config.studies.{key}: a sweep keeps files of its own there; take another name")
        try:
            parsed[key] = study_config.parse(config_of)
        except ConfigError as error:
            raise ConfigError(f"study {key}: {error}") from error
    return parsed


def plan(
    found: Mapping[str, spec.Study], old: Sequence[jobs.Job], price: Market, budget: Budget
) -> tuple[jobs.Job, ...]:
    """The old jobs, followed by new ones for all of the studies that no old one trains.

    `price` is asked only about what is new.

    Raises:
      RoomError: one seed of one grid point needs more memory than the budget has.
    """
    planned, taken, trained = list(old), {job.name for job in old}, _by_pack(old)
    for key, study in found.items():
        for pack in study.packs:
            for rectangle in missing(study, pack, trained[key, pack.name]):
                for points, seeds in _split(rectangle, _fits(key, pack, price, budget)):
                    cost = price(key, pack, points, len(seeds))
                    _check_memory(key, pack, cost, budget)
                    name = naming.name(key if len(found) > 1 else "", pack, points, seeds, taken)
                    taken.add(name)
                    planned.append(jobs.Job(name, key, pack.name, points, seeds, **vars(cost)))
    return tuple(planned)


def anything_missing(found: Mapping[str, spec.Study], old: Sequence[jobs.Job]) -> bool:
    """Whether the old jobs leave something of the studies untrained."""
    trained = _by_pack(old)
    return any(missing(study, pack, trained[key, pack.name]) for key, study in found.items() for pack in study.packs)


def _by_pack(old: Sequence[jobs.Job]) -> collections.defaultdict[tuple[str, str], list[jobs.Job]]:
    trained = collections.defaultdict(list)
    for job in old:
        trained[job.study, job.pack].append(job)
    return trained


def missing(study: spec.Study, pack: spec.Pack, old: Sequence[jobs.Job]) -> list[Rectangle]:
    """What no job trains of a pack, seeds that miss the same points together."""
    planned: dict[int, set[int]] = {seed: set() for seed in study.seeds}
    for job in old:
        for seed in job.seeds:
            planned[seed].update(job.points)
    groups: dict[tuple[int, ...], list[int]] = {}
    for seed, points in planned.items():
        left = tuple(i for i in range(len(pack.plans)) if i not in points)
        if left:
            groups.setdefault(left, []).append(seed)
    return [(points, tuple(seeds)) for points, seeds in groups.items()]


def _fits(key: str, pack: spec.Pack, price: Market, budget: Budget) -> Callable[[tuple[int, ...], int], bool]:
    def fits(points: tuple[int, ...], seeds: int) -> bool:
        cost = price(key, pack, points, seeds)
        pairs: list[tuple[Any, Any]] = [
            (cost.bytes, budget.memory),
            (cost.seconds, budget.seconds),
            (cost.runs, budget.runs),
        ]
        return all(need is None or there is None or need <= there for need, there in pairs)

    return fits


def _split(whole: Rectangle, fits: Callable[[tuple[int, ...], int], bool]) -> Iterator[Rectangle]:
    """Parts that fit, as few as there need be; what fits in no way is one point and one seed."""
    points, seeds = whole
    most = _largest(len(seeds), lambda count: fits(points, count))
    if most:
        yield from ((points, part) for part in _deal(seeds, most))
        return
    parts, rest = [], points
    while rest:
        size = max(1, _largest(len(rest), lambda count, rest=rest: fits(rest[:count], 1)))  # type: ignore[misc]
        parts.append(rest[:size])
        rest = rest[size:]
    yield from ((part, (seed,)) for seed in seeds for part in parts)


def _largest(limit: int, good: Callable[[int], bool]) -> int:
    """The largest number from 1 to `limit` that is good, if those below a good one are; 0 if none is.

    It looks at small numbers first, which cost less to judge.
    """
    low, high = 0, 1
    while good(high):
        if high == limit:
            return limit
        low, high = high, min(2 * high, limit)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def _deal(items: tuple[int, ...], most: int) -> Iterator[tuple[int, ...]]:
    """Runs of neighbours of at most `most` items, whose lengths differ by one at most."""
    count = -(-len(items) // most)
    ends = [len(items) * i // count for i in range(count + 1)]
    yield from (items[start:end] for start, end in zip(ends, ends[1:], strict=False))


def _check_memory(key: str, pack: spec.Pack, cost: Price, budget: Budget) -> None:
    if budget.memory is not None and cost.bytes is not None and cost.bytes > budget.memory:
        raise RoomError(
            f"study {key}, pack {pack.name}: one seed of one grid point needs {cost.bytes / 1e9:.3g} GB of memory, and "
            f"--memory_gb is {budget.memory / 1e9:.3g}; take more, or a smaller network, batch_size or eval_batch"
        )
