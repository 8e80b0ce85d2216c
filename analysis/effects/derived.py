"""Measurements of a seed that are not weighted sums: quotients, the best of several runs, interpolation between runs.

They are terms of a `contrasts.Sum` like `contrasts.Term`, and are undefined for a seed that lacks a part of them.

    over("probe-stage-1", the("stepdecay", stage="train"))                 a quotient of two contrasts
    chosen("redo", "validation_accuracy")                                  the point of the grid that is best for all
    best(family("probe-stage-1[weight_decay={}]"), "validation_accuracy")  the run of a seed that is best by that
    between(family("train[schedule=compressed-{}]"), "train[schedule=autodecay]")    at the length of another run
    ranked(("noise_trace", 0.0), ("test_accuracy", "window"))              their rank correlation over a seed's runs
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from plasticity_jax.analysis import studies
from plasticity_jax.analysis.effects import contrasts
from plasticity_jax.analysis.effects.contrasts import Contrast, Family, Known, Operand, Sum
from plasticity_jax.storage import results


@dataclasses.dataclass(frozen=True)
class Derived:
    """Fields common to all of them, see `contrasts.Term`."""

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
    """The measurement of the label that is best by another metric at the end, chosen separately for each seed.

    Ties go to the first label.  The choice does not depend on the measured metric.
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
class Chosen(Derived):
    """The measurement of one of several labels, equal for all seeds: the one with the best mean of another metric.

    by: the metric that chooses, over the same time.  If empty, each seed takes the label that is best at the *other*
        seeds by the measured metric.  In both cases the choice does not depend on the reported measurement.
    A label with failed seeds ranks below labels with more seeds.
    """

    labels: tuple[str, ...]
    by: str

    @property
    def label(self) -> str:
        name = self.labels[0].partition("[")[0]
        return f"{name} chosen by {self.by or 'the other seeds'}" if len(self.labels) > 1 else name

    def choices(self, study: studies.Study) -> dict[int, str]:
        """The label chosen for each seed."""
        scores = {
            label: studies.values(study, label, self.by or self.metric, self.at, self.stage) for label in self.labels
        }
        seeds = sorted(set().union(*scores.values()))
        if self.by or len(self.labels) == 1:
            return dict.fromkeys(seeds, _best(scores))
        return {
            s: _best({label: {t: v for t, v in each.items() if t != s} for label, each in scores.items()})
            for s in seeds
        }

    def by_seed(self, study: studies.Study) -> dict[int, float]:
        values = {label: studies.values(study, label, self.metric, self.at, self.stage) for label in self.labels}
        return {seed: values[label][seed] for seed, label in self.choices(study).items() if seed in values[label]}


def _best(scores: Mapping[str, Mapping[int, float]]) -> str:
    return max(scores, key=lambda label: (len(scores[label]), math.fsum(scores[label].values())))


@dataclasses.dataclass(frozen=True)
class Between(Derived):
    """The value at the length of another run, interpolated linearly between runs of several lengths.

    Outside the range of lengths it is the value of the nearest run.
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


What = tuple[str, studies.When]  # a metric, and when


@dataclasses.dataclass(frozen=True)
class Ranks(Derived):
    """Spearman's rank correlation of two measurements over the labels of one seed.

    given: a third measurement to control for (partial correlation of the ranks).
    Undefined for a seed with fewer than three labels (four with `given`), or if a measurement is constant.
    """

    labels: tuple[str, ...]
    first: What
    second: What
    given: What | None = None

    @property
    def label(self) -> str:
        given = f" at equal {self.given[0]}" if self.given else ""
        return f"rank correlation of {self.first[0]} and {self.second[0]}{given}"

    def by_seed(self, study: studies.Study) -> dict[int, float]:
        columns = [
            {label: studies.values(study, label, *what, self.stage) for label in self.labels}
            for what in (self.first, self.second, self.given)
            if what
        ]
        coefficients = {}
        for seed in sorted(set().union(*(values for column in columns for values in column.values()))):
            labels = [label for label in self.labels if all(seed in column[label] for column in columns)]
            value = rank_correlation(*([column[label][seed] for label in labels] for column in columns))
            if math.isfinite(value):
                coefficients[seed] = value
        return coefficients


def rank_correlation(first: Sequence[float], second: Sequence[float], given: Sequence[float] | None = None) -> float:
    """Spearman's rank correlation, or the partial one given a third; NaN where undefined."""
    from scipy.stats import rankdata  # imported here because it takes a second

    ranks = [rankdata(values) for values in (first, second, given) if values is not None]
    if len(first) <= len(ranks) or any(np.ptp(values) == 0 for values in ranks):
        return math.nan
    r = np.corrcoef(ranks)
    if given is None:
        return float(r[0, 1])
    left = (1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)
    return float((r[0, 1] - r[0, 2] * r[1, 2]) / math.sqrt(left)) if left > contrasts.TINY else math.nan


def ranked(first: What, second: What, given: What | None = None) -> Contrast:
    """A rank correlation over all final runs of a seed."""

    def find(known: Known) -> Sum | None:
        labels = tuple(label for stage, label in known if not stage)
        return Sum((Ranks(1.0, labels, first, second, given),)) if len(labels) > 2 else None

    return find


def over(top: Operand, bottom: Operand) -> Contrast:
    """top / bottom."""

    def find(known: Known) -> Sum | None:
        above, below = contrasts.find(top, known), contrasts.find(bottom, known)
        return Sum((Quotient(1.0, above, below),)) if above and below else None

    return find


def best(members: Family, by: str, at: str | float = studies.END) -> Contrast:
    """The test accuracy of the member that is best by another metric, separately for each seed."""

    def find(known: Known) -> Sum | None:
        labels = _labels(members, known)
        return Sum((Best(1.0, labels, by, at=at),)) if labels else None

    return find


def chosen(branch: str, by: str, metric: str = results.METRIC) -> Contrast:
    """A metric of a branch over the window, at the grid point chosen by another metric; see `Chosen`."""

    def find(known: Known) -> Sum | None:
        labels = tuple(label for stage, label in known if not stage and label.partition("[")[0] == branch)
        return Sum((Chosen(1.0, labels, by, metric=metric),)) if labels else None

    return find


def between(members: Family, other: str, at: str | float = studies.END) -> Contrast:
    """The test accuracy of the members, interpolated at the length of another label's run."""

    def find(known: Known) -> Sum | None:
        labels = _labels(members, known)
        return Sum((Between(1.0, labels, other, at=at),)) if labels and ("", other) in known else None

    return find


def _labels(members: Family, known: Known) -> tuple[str, ...]:
    return tuple(term.label for each in members(known).values() for term in each.terms)
