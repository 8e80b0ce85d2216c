"""Divides the studies of a sweep into jobs: as few as fit into memory and time.  Pure; costs are an argument.

A pack is one job if it fits, since all its runs share programs.  Otherwise its seeds, which share nothing, are
distributed over several jobs; and only if a single seed does not fit, its grid points too, each job then with its own
pretraining.
"""

import collections
import dataclasses
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ml_collections import ConfigDict

from plasticity_jax import study_config
from plasticity_jax.config import names, spec
from plasticity_jax.errors import ConfigError, RoomError
from plasticity_jax.launch import jobs

TAKEN = ("sweep.json", "slurm", "xm")  # names that launchers use in the directory of a sweep
Rectangle = tuple[tuple[int, ...], tuple[int, ...]]  # (points, seeds): all combinations of the two


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits of a job: bytes of memory, seconds, runs; None for no limit."""

    memory: int | None = None
    seconds: float | None = None
    runs: int | None = None


@dataclasses.dataclass(frozen=True)
class Price:
    """Cost of a job: final runs, training images, seconds and bytes (None if unknown)."""

    runs: int
    images: int
    seconds: float | None
    bytes: int | None


class Market(Protocol):
    """Returns the cost of `seeds` seeds of some points of a pack."""

    def __call__(self, key: str, pack: spec.Pack, points: tuple[int, ...], seeds: int) -> Price: ...


def studies(config: ConfigDict) -> dict[str, spec.Study]:
    """The studies of a sweep config by key; the key of a single study is its name.

    Raises:
      ConfigError: a study is invalid, or a key cannot be the name of a directory.
    """
    if "studies" not in config:
        study = study_config.parse(config)
        key = names.safe(study.name or "study")[: names.LONGEST]
        return {f"_{key}" if key in TAKEN else key: study}
    if list(config) != ["studies"] or not isinstance(config.studies, (ConfigDict, Mapping)) or not config.studies:
        raise ConfigError("config.studies: a sweep has only this key, a group of studies by name")
    parsed = {}
    for key, config_of in config.studies.items():
        names.check(key, f"config.studies.{key}")
        if key in TAKEN:
            raise ConfigError(f"config.studies.{key}: this name is reserved for files of a sweep; choose another")
        try:
            parsed[key] = study_config.parse(config_of)
        except ConfigError as error:
            raise ConfigError(f"study {key}: {error}") from error
    return parsed


def plan(
    by_key: Mapping[str, spec.Study], old: Sequence[jobs.Job], price: Market, budget: Budget
) -> tuple[jobs.Job, ...]:
    """The old jobs, followed by new jobs for everything that no old job trains.

    `price` is called only for new jobs.

    Raises:
      RoomError: one seed of one grid point exceeds the memory budget.
    """
    planned, taken, trained = list(old), {job.name for job in old}, _by_pack(old)
    for key, study in by_key.items():
        for pack in study.packs:
            for rectangle in missing(study, pack, trained[key, pack.name]):
                for points, seeds in _split(rectangle, _fits(key, pack, price, budget)):
                    cost = price(key, pack, points, len(seeds))
                    _check_memory(key, pack, cost, budget)
                    name = name_of(key if len(by_key) > 1 else "", pack, points, seeds, taken)
                    taken.add(name)
                    planned.append(jobs.Job(name, key, pack.name, points, seeds, **vars(cost)))
    return tuple(planned)


def anything_missing(by_key: Mapping[str, spec.Study], old: Sequence[jobs.Job]) -> bool:
    """Whether some part of the studies is in no old job."""
    trained = _by_pack(old)
    return any(missing(study, pack, trained[key, pack.name]) for key, study in by_key.items() for pack in study.packs)


def _by_pack(old: Sequence[jobs.Job]) -> collections.defaultdict[tuple[str, str], list[jobs.Job]]:
    trained = collections.defaultdict(list)
    for job in old:
        trained[job.study, job.pack].append(job)
    return trained


def missing(study: spec.Study, pack: spec.Pack, old: Sequence[jobs.Job]) -> list[Rectangle]:
    """The (points, seeds) of a pack that no job trains; seeds that miss the same points are together."""
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
        return all(need is None or limit is None or need <= limit for need, limit in pairs)

    return fits


def _split(whole: Rectangle, fits: Callable[[tuple[int, ...], int], bool]) -> Iterator[Rectangle]:
    """As few parts that fit as possible; the smallest part, one point and one seed, is yielded even if it does not."""
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
    """The largest number from 1 to `limit` for which `good`, a decreasing predicate, is true; 0 if none.

    Tries small numbers first, whose cost is cheaper to compute.
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
    """Splits items into as few contiguous parts of at most `most` items as possible, of nearly equal length."""
    count = -(-len(items) // most)
    ends = [len(items) * i // count for i in range(count + 1)]
    yield from (items[start:end] for start, end in zip(ends, ends[1:], strict=False))


def _check_memory(key: str, pack: spec.Pack, cost: Price, budget: Budget) -> None:
    if budget.memory is not None and cost.bytes is not None and cost.bytes > budget.memory:
        raise RoomError(
            f"study {key}, pack {pack.name}: one seed of one grid point needs {cost.bytes / 1e9:.3g} GB of memory, and "
            f"--memory_gb is {budget.memory / 1e9:.3g}; take more, or a smaller network, batch_size or eval_batch"
        )


def name_of(study: str, pack: spec.Pack, points: Sequence[int], seeds: Sequence[int], taken: Collection[str]) -> str:
    """A readable name for a job, safe as a directory and not in `taken`; without `study` if that is empty.

    `width=8,seeds=0-4`: the pack, the points if they are not all of the pack, and the seeds.
    """
    chosen = [] if len(points) == len(pack.plans) else _values([pack.plans[i][0] for i in points], pack)
    first = [] if pack.name == "main" else [pack.name]
    whole = names.safe(",".join([*([study] if study else []), *first, *chosen, f"seeds={_spans(seeds)}"]), commas=True)
    for number in range(1, len(taken) + 2):
        text = _short(whole, "" if number == 1 else f".{number}")
        if text not in taken:
            return text
    raise AssertionError("more names are taken than there are")


def _values(points: Sequence[spec.HParams], pack: spec.Pack) -> list[str]:
    """`key=value+value` for each hyper-parameter in which the points of the pack differ."""
    first = dict(pack.plans[0][0])
    varying = {key for hparams, _ in pack.plans for key, value in hparams if value != first[key]}
    keys = [key for key, _ in points[0] if key in varying]
    return [f"{key}={'+'.join(dict.fromkeys(str(dict(point)[key]) for point in points))}" for key in keys]


def _spans(seeds: Sequence[int]) -> str:
    """`0-4+7` for 0, 1, 2, 3, 4 and 7."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return "+".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _short(text: str, end: str) -> str:
    """`text` with `end`; if it is too long, a checksum replaces its middle."""
    if len(text) + len(end) <= names.LONGEST:
        return text + end
    mark = f"..{zlib.crc32(text.encode()):08x}"
    return text[: names.LONGEST - len(mark) - len(end)] + mark + end
