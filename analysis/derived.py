"""Measurements of a seed that are no weighted sums: quotients, the best of several runs, values between runs.

They stand in a `contrasts.Sum` like a `contrasts.Term`, and are undefined for a seed that lacks a part of them.

    over("probe-stage-1", the("stepdecay", stage="train"))                 a quotient of two contrasts
    best(family("probe-stage-1[weight_decay={}]"), "validation_accuracy")  the run of a seed that is best by that
    between(family("train[schedule=compressed-{}]"), "train[schedule=autodecay]")    at the length of another run
"""

import dataclasses
import math

import numpy as np

from plasticity_jax.analysis import contrasts, studies
from plasticity_jax.analysis.contrasts import Contrast, Family, Known, Operand, Sum
from plasticity_jax.storage import results


@dataclasses.dataclass(frozen=True)
class Derived:
    """What all of them have, so that a formula can be written; see `contrasts.Term`."""

    weight: float
    metric: str = dataclasses.field(default=results.METRIC, kw_only=True)
    at: str | float = dataclasses.field(default=studies.WINDOW, kw_only=True)
    stage: str = dataclasses.field(default="", kw_only=True)


@dataclasses.dataclass(frozen=True)
class Quotient(Derived):
    """One sum over another, seed by seed."""

    top: Sum
    bottom: Sum

    @property
    def label(self) -> str:
        return f"({contrasts.formula(self.top)}) / ({contrasts.formula(self.bottom)})"

    def by_seed(self, study: studies.Study) -> dict[int, float]:
        top, bottom = contrasts.by_seed(study, self.top), contrasts.by_seed(study, self.bottom)
        return {seed: top[seed] / bottom[seed] for seed in top.keys() & bottom.keys() if bottom[seed]}


@dataclasses.dataclass(frozen=True)
class Best(Derived):
    """The measurement of that label which is best by another metric at the end, chosen for each seed by itself.

    Of labels that are equally good the first is taken: what is measured has no say in what is chosen.
    """

    labels: tuple[str, ...]
    by: str

    @property
    def label(self) -> str:
        return f"best of {', '.join(self.labels)} by {self.by}"

    def by_seed(self, study: studies.Study) -> dict[int, float]:
        best: dict[int, tuple[float, float]] = {}
        for label in self.labels:
            judged = studies.values(study, label, self.by, studies.END, self.stage)
            values = studies.values(study, label, self.metric, self.at, self.stage)
            for seed in judged.keys() & values.keys():
                if judged[seed] > best.get(seed, (-math.inf, 0.0))[0]:
                    best[seed] = judged[seed], values[seed]
        return {seed: value for seed, (_, value) in sorted(best.items())}


@dataclasses.dataclass(frozen=True)
class Between(Derived):
    """What runs of several lengths would have come to in as many updates as another run took; linear between them.

    A seed whose other run is longer or shorter than all of them has the value of the nearest.
    """

    labels: tuple[str, ...]
    other: str

    @property
    def label(self) -> str:
        return f"{', '.join(self.labels)} at the length of {self.other}"

    def by_seed(self, study: studies.Study) -> dict[int, float]:
        steps = {label: studies.values(study, label, "steps", stage=self.stage) for label in self.labels}
        values = {label: studies.values(study, label, self.metric, self.at, self.stage) for label in self.labels}
        interpolated = {}
        for seed, length in studies.values(study, self.other, "steps", stage=self.stage).items():
            measured = [label for label in self.labels if seed in steps[label] and seed in values[label]]
            if measured:
                x, y = zip(*sorted((steps[label][seed], values[label][seed]) for label in measured), strict=True)
                interpolated[seed] = float(np.interp(length, x, y))
        return interpolated


def over(top: Operand, bottom: Operand) -> Contrast:
    """A quotient."""

    def find(known: Known) -> Sum | None:
        above, below = contrasts.find(top, known), contrasts.find(bottom, known)
        return Sum((Quotient(1.0, above, below),)) if above and below else None

    return find


def best(members: Family, by: str, at: str | float = studies.END) -> Contrast:
    """The test accuracy of that member which is the best of the seed's by another metric."""

    def find(known: Known) -> Sum | None:
        labels = _labels(members, known)
        return Sum((Best(1.0, labels, by, at=at),)) if labels else None

    return find


def between(members: Family, other: str, at: str | float = studies.END) -> Contrast:
    """The test accuracy that the members would have come to at the length of another label's run."""

    def find(known: Known) -> Sum | None:
        labels = _labels(members, known)
        return Sum((Between(1.0, labels, other, at=at),)) if labels and ("", other) in known else None

    return find


def _labels(members: Family, known: Known) -> tuple[str, ...]:
    return tuple(term.label for each in members(known).values() for term in each.terms)
