"""What is measured, as data: a plan is a list of cases, a case is a network and the programs that train it."""

import dataclasses
from collections.abc import Iterable, Sequence

from plasticity_jax.parallel import run_axis

MODEL = "resnet"
DIGITS = "--config=configs/multistage.py:digits"
SHORT = " --config.model.name=mlp --config.seeds=0,1 --config.test_images=100" + "".join(
    f" --config.stages.{stage}.{value}" for stage in ("pretrain", "tune") for value in ("steps=4", "eval_every=0")
)


@dataclasses.dataclass(frozen=True)
class Point:
    """One program: `runs` runs, trained side by side by a strategy of `run_axis`."""

    runs: int
    strategy: str

    @property
    def name(self) -> str:
        return f"{self.runs} {self.strategy}"


@dataclasses.dataclass(frozen=True)
class Case:
    """A residual network, depth 2 for ResNet-18; the first point is the run alone, to which the others are compared."""

    width: int
    stem: str
    dtype: str
    points: tuple[Point, ...]
    depth: int = 2

    @property
    def name(self) -> str:
        return f"{self.stem} stem, width {self.width}, {self.dtype}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """All cases and how each is measured.

    modes: of PyTorch, `eager` and `compile`; the first is the one that counts.
    rounds: in each, everything in a case is measured once; seconds: how long, at least a step.
    batch, side, images: images in a batch, their height and width, and how many there are.
    matmul: rows of the square matrices whose product is the machine's rate.
    growth: name of the case that shows how time and memory grow with the runs; empty for none.
    real: arguments of `plasticity_jax.main` for the real run; empty for none.
    """

    cases: tuple[Case, ...]
    modes: tuple[str, ...]
    rounds: int
    seconds: float
    batch: int
    side: int
    images: int
    matmul: int
    growth: str
    real: str


def chosen(count: int) -> str:
    """The strategy that the lab takes for that many runs."""
    return run_axis.choose("auto", MODEL, count)


def points(counts: Iterable[int], strategies: Sequence[str]) -> tuple[Point, ...]:
    """The run alone as the lab would train it, then each count by each strategy.

    Without strategies, these are `map` and what the lab takes.
    """
    alone = Point(1, chosen(1))
    several = [Point(n, each) for n in counts for each in strategies or dict.fromkeys(("map", chosen(n)))]
    return (alone, *(each for each in several if each != alone))


def cpu(strategies: Sequence[str] = ()) -> Plan:
    """Takes six minutes on two cores."""
    cases = []
    for stem in ("imagenet", "cifar"):
        for width in (4, 8, 16):
            counts = [4, 8] if width <= 8 else [4]
            counts += [32] if (stem, width) == ("imagenet", 8) else []
            cases.append(Case(width, stem, "float32", points(counts, strategies)))
    return Plan(tuple(cases), ("eager",), 5, 0.7, 128, 32, 5000, 2048, cases[1].name, DIGITS)


def gpu(strategies: Sequence[str] = ()) -> Plan:
    """Takes ten minutes on one GPU, most of them compilation; an estimate, not yet measured."""
    strategies = strategies or ("map", "vmap", "seedwise")
    cases = (
        Case(16, "imagenet", "bfloat16", points([8, 32], strategies)),
        Case(16, "cifar", "bfloat16", points([8], strategies)),
        Case(64, "imagenet", "bfloat16", points([5], strategies)),
        Case(64, "cifar", "bfloat16", points([5], strategies)),
    )
    return Plan(cases, ("compile", "eager"), 7, 0.5, 128, 32, 50000, 8192, cases[0].name, "")


def quick(strategies: Sequence[str] = ()) -> Plan:
    """Every kind of measurement once, too small for numbers that mean anything."""
    case = Case(4, "cifar", "float32", points([2], strategies), depth=1)
    return Plan((case,), ("eager",), 3, 0.02, 8, 8, 100, 128, case.name, DIGITS + SHORT)
