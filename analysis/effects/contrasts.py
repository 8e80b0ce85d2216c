"""Contrasts between the branches of a study, and claims about them; `analysis.effects.stats` has the rule for verdicts.

    gap = minus("fresh", "pretrain+tune")                                 fresh - pretrain+tune, seed by seed
    minus("fresh", largest(family("blend[gamma={}]")))                    at the largest gamma that there is
    slope(family("splits-{}", also={1: "fresh"}))                         points per data set

A *contrast* is a function of the runs of a study.  It returns a weighted sum of measurements per seed, or None if the
study lacks a branch that it needs.  So one claim serves the paper's grid and a coarser one.
"""

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from plasticity_jax.analysis import studies
from plasticity_jax.analysis.effects import transitions
from plasticity_jax.analysis.effects.stats import ABOVE, MARGIN
from plasticity_jax.storage import results

DIGITS = 9  # decimals of an effect; further digits are rounding errors and must not decide a verdict
TINY = 1e-12  # smaller weights are rounding errors

NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


@dataclasses.dataclass(frozen=True)
class Term:
    """A weight times a measurement; the other fields are the arguments of `studies.values`."""

    weight: float
    label: str
    metric: str = results.METRIC
    at: studies.When = studies.WINDOW
    stage: str = ""

    def by_seed(self, study: studies.Study) -> dict[int, float]:
        """The measurement for every seed that has it."""
        return studies.values(study, self.label, self.metric, self.at, self.stage)


@dataclasses.dataclass(frozen=True)
class Sum:
    """A weighted sum of measurements of one seed, plus a constant.

    terms: each a `Term`, or something of the same form, as those of `analysis.effects.derived`.
    """

    terms: tuple[Any, ...]
    offset: float = 0.0


Known = Collection[
    tuple[str, str]
]  # (stage, label) of all runs; those that no stage continues from also as ("", label)
Contrast = Callable[[Known], Sum | None]
Operand = Contrast | str | float  # a contrast, a label, or a constant
Key = tuple[float, ...]
Family = Callable[[Known], Mapping[Key, Sum]]  # the members that there are, by the numbers in their labels


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of a paper, or a control, as a contrast of one study.

    id: unique within the study.  study: the `name` of the config.
    source: the paper as `Authors 2021` and the place in it; our own controls begin with `ours: `.
    direction: one of those of `analysis.effects.stats`.  margin: for `not_below` and `within`, in units of the effect.
    unit: of the effect; `points` are points of accuracy.
    """

    id: str
    study: str
    statement: str
    source: str
    contrast: Contrast
    direction: str = ABOVE
    margin: float = MARGIN
    unit: str = "points"

    @property
    def ours(self) -> bool:
        """Whether it is our own control, not a statement of the paper."""
        return self.source.startswith("ours: ")

    @property
    def paper(self) -> str:
        """The paper, which defines the family for multiplicity corrections."""
        return re.split(r",| \[", self.source.removeprefix("ours: "))[0]


def the(
    label: str, metric: str = results.METRIC, at: studies.When = studies.WINDOW, stage: str = ""
) -> Callable[[Known], Sum | None]:
    """One measurement of a label, as in `studies.values`; without a stage, at the end of its training."""
    return lambda available: Sum((Term(1.0, label, metric, at, stage),)) if (stage, label) in available else None


def minus(first: Operand, second: Operand) -> Contrast:
    """first - second."""
    return lambda available: _add([(1.0, find(first, available)), (-1.0, find(second, available))])


def times(weight: float, operand: Operand) -> Contrast:
    """weight * operand."""
    return lambda available: _add([(weight, find(operand, available))])


def measured(contrast: Operand, metric: str, at: studies.When = studies.WINDOW) -> Contrast:
    """The same contrast, of another metric."""

    def replaced(available: Known) -> Sum | None:
        total = find(contrast, available)
        return total and Sum(
            tuple(dataclasses.replace(term, metric=metric, at=at) for term in total.terms), total.offset
        )

    return replaced


def family(
    pattern: str,
    take: Callable[..., Operand] | None = None,
    least: float = -math.inf,
    also: Mapping[float, Operand] | None = None,
) -> Family:
    """The labels that differ only in a number.

    Args:
      pattern: a label with `{}` for each number, and `*` for numbers that do not distinguish members.
      take: the operand of a member, as a function of its numbers (as text); its label if None.
      least: leave out members whose first number is below.
      also: further members by their number.
    """
    regex = re.compile(re.escape(pattern).replace(r"\{\}", f"({NUMBER})").replace(r"\*", NUMBER))

    def members(available: Known) -> Mapping[Key, Sum]:
        matches = [regex.fullmatch(label) for stage, label in available if not stage]
        texts = {match.groups(): match.string for match in matches if match}
        operands = {tuple(map(float, text)): take(*text) if take else label for text, label in texts.items()}
        operands |= {(float(number),): operand for number, operand in (also or {}).items()}
        sums = {key: find(operands[key], available) for key in sorted(operands) if key[0] >= least}
        return {key: total for key, total in sums.items() if total}

    return members


def largest(members: Family) -> Contrast:
    """The member with the largest number (of several numbers, the first counts first)."""
    return lambda available: _last(members(available))


def smallest(members: Family) -> Contrast:
    """The member with the smallest number."""
    return lambda available: next(iter(members(available).values()), None)  # they are sorted


def spread(members: Family) -> Contrast:
    """The member with the largest number minus the one with the smallest; None if there is only one."""

    def difference(available: Known) -> Sum | None:
        by_size = members(available)
        return _add([(1.0, by_size[max(by_size)]), (-1.0, by_size[min(by_size)])]) if len(by_size) > 1 else None

    return difference


def average(members: Family, least: int = 1) -> Contrast:
    """The mean over the members; None if there are fewer than `least`."""

    def mean(available: Known) -> Sum | None:
        parts = members(available)
        return _add([(1 / len(parts), part) for part in parts.values()]) if len(parts) >= least else None

    return mean


def slope(members: Family, per: float = 1.0) -> Contrast:
    """The least-squares slope over the members' number, per `per`; None if there are fewer than two."""

    def fitted(available: Known) -> Sum | None:
        by_x = members(available)
        if len(by_x) < 2:
            return None
        centre = statistics.fmean(x for (x,) in by_x)
        square = math.fsum((x - centre) ** 2 for (x,) in by_x)
        return _add([(per * (x - centre) / square, member) for (x,), member in by_x.items()])

    return fitted


def _last(members: Mapping[Key, Sum]) -> Sum | None:
    return members[max(members)] if members else None


def find(operand: Operand, available: Known) -> Sum | None:
    """The sum of an operand; None if the study lacks a part of it."""
    if isinstance(operand, str):
        operand = the(operand)
    return operand(available) if callable(operand) else Sum((), operand)


def _add(parts: Sequence[tuple[float, Sum | None]]) -> Sum | None:
    """The weighted sum of sums, with equal measurements merged and zero weights removed; None if a sum is None."""
    weights: dict[Any, float] = {}
    offset = 0.0
    for weight, part in parts:
        if part is None:
            return None
        offset += weight * part.offset
        for term in part.terms:
            key = dataclasses.replace(term, weight=1.0)
            weights[key] = weights.get(key, 0.0) + weight * term.weight
    kept = {term: weight for term, weight in weights.items() if abs(weight) > TINY}
    return Sum(tuple(dataclasses.replace(term, weight=weight) for term, weight in kept.items()), offset)


def known(study: studies.Study) -> Known:
    """The runs that a contrast may use: (stage, label) of every run, and ("", label) of final runs."""
    pairs = study.table[["stage", "label"]].drop_duplicates().itertuples(index=False, name=None)
    return dict.fromkeys([*pairs, *(("", label) for label in studies.labels(study))])


def by_seed(study: studies.Study, total: Sum) -> dict[int, float]:
    """The sum for every seed that has all of its terms."""
    by_term = [term.by_seed(study) for term in total.terms]
    seeds = sorted(set.intersection(*map(set, by_term))) if by_term else []
    pairs = list(zip(total.terms, by_term, strict=True))
    return {
        seed: round(total.offset + math.fsum(term.weight * values[seed] for term, values in pairs), DIGITS)
        for seed in seeds
    }


def is_difference(total: Sum) -> bool:
    """Whether the expected value is zero if nothing has any effect: the weights of the sum add up to zero."""
    changes = [isinstance(term.at, transitions.At) and term.at.kind in transitions.CHANGES for term in total.terms]
    left = math.fsum(term.weight for term, change in zip(total.terms, changes, strict=True) if not change)
    return abs(left) < TINY and abs(total.offset) < TINY


def formula(total: Sum, longest: int = 4) -> str:
    """A sum as text: `fresh - blend[gamma=0.9]`, with the metric if it is not the study's."""
    terms = total.terms
    stages = {term.stage for term in terms}
    names = [term.label if len(stages) == 1 else f"{term.stage}/{term.label}".strip("/") for term in terms]
    differ = len(terms) <= longest and len({(term.metric, term.at) for term in terms}) > 1
    if differ:  # each term is followed by its metric and time
        names = [name + _in_brackets(_what([term])) for name, term in zip(names, terms, strict=True)]
    parts = [(term.weight, _factor(term.weight) + name) for term, name in zip(terms, names, strict=True)]
    if len(terms) > longest:
        parts = [(1.0, f"a weighted sum of {len(terms)} measurements")]
    if total.offset:
        parts.append((total.offset, f"{abs(total.offset):g}"))
    parts.sort(key=lambda part: part[0] < 0)  # positive terms first, otherwise in their order
    text = "".join(f" {'-' if sign < 0 else '+'} {what}" for sign, what in parts).removeprefix(" + ").strip()
    where = [f"in {stage}" for stage in stages if stage and len(stages) == 1]
    return text + _in_brackets([*([] if differ else _what(terms)), *where])


def _what(terms: Iterable[Any]) -> list[str]:
    """The metrics and times of terms that differ from the study's metric and window."""
    plain = Term(1.0, "")
    metrics = dict.fromkeys(term.metric for term in terms if term.metric != plain.metric)
    return [*metrics, *dict.fromkeys(_time(term.at) for term in terms if term.at != plain.at)]


def _in_brackets(words: Sequence[str]) -> str:
    return f" ({' '.join(words)})" if words else ""


def _factor(weight: float) -> str:
    return "" if abs(abs(weight) - 1) < TINY else f"{abs(weight):.3g} "


def _time(at: studies.When) -> str:
    if isinstance(at, transitions.At):
        return str(at)
    return f"at the {at}" if isinstance(at, str) else f"at epoch {at:g}"
