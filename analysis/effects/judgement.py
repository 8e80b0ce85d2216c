"""Judges claims on the given studies by `analysis.effects.stats`, with corrections for each paper.

judged = judge(found)
summary(judged)             how many were tested and what came out: claims of papers, and controls of our own
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax.analysis import scale, studies
from plasticity_jax.analysis.claims import CLAIMS
from plasticity_jax.analysis.effects import contrasts, stats
from plasticity_jax.analysis.effects.contrasts import Claim
from plasticity_jax.analysis.effects.stats import CONTRADICTED, INCONCLUSIVE, REPRODUCED, UNTESTED
from plasticity_jax.storage import results

DECIDED = (REPRODUCED, CONTRADICTED)
Numbers = tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A claim and its result in one study.

    about: the data and the scale of the study.  formula: the measurement, as `fresh - pretrain+tune`; may be empty.
    effect, low, high: in `claim.unit`, with the interval of the rule; None if undefined.
    by_seed: the effect of each seed.  difference: whether the expected effect is zero if no treatment has an effect.
    p: the smallest error of the verdict; 1 without an interval.  k: the number of tests in its family.
    bonferroni, holm: whether the verdict holds after the correction; None without a verdict.
    note: why there is no verdict, that the study is in progress, or which claim has the same numbers; may be empty.
    """

    claim: Claim
    directory: Path
    about: str
    formula: str
    effect: float | None
    low: float | None
    high: float | None
    by_seed: Mapping[int, float]
    verdict: str
    difference: bool
    p: float
    k: int
    bonferroni: bool | None
    holm: bool | None
    note: str

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.by_seed)

    @property
    def numbers(self) -> Numbers:
        """The measurements up to the sign; claims with equal numbers count as one test."""
        return max(tuple((seed, sign * value) for seed, value in sorted(self.by_seed.items())) for sign in (1, -1))


def judge(read: Iterable[studies.Study], claims: Iterable[Claim] = CLAIMS) -> list[Judged]:
    """Every claim about each study, in the order of the claims; those that cannot be tested have a note.

    Args:
      found: studies; those of the same directory count once.
      claims: all claims, also about other studies, since they define the families of the corrections.
    """
    claims = list(claims)
    studies_of = {(study.directory.resolve(), study.name): study for study in read}.values()
    names = dict.fromkeys(claim.study for claim in claims)
    judged = []
    for study in (study for name in names for study in studies_of if study.name == name):
        about, labels = scale.describe(study), contrasts.known(study)
        judged += [_judge(study, claim, about, labels) for claim in claims if claim.study == study.name]
    return _corrected(judged, claims)


def distinct(judged: Iterable[Judged]) -> list[Judged]:
    """The tested claims, without duplicates of equal numbers and verdict about the same paper."""
    tested = [outcome for outcome in judged if outcome.verdict != UNTESTED]
    return list(
        {(outcome.claim.paper, outcome.numbers, outcome.verdict): outcome for outcome in reversed(tested)}.values()
    )[::-1]


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Counts of verdicts for the papers' claims and for our own controls, and the number expected by chance.

    Claims on the same numbers count once.  `differences` counts the contrasts whose expected effect is zero if no
    treatment has an effect; `by_chance` is the expected number of these that exclude zero nevertheless.
    """
    differences = {
        (outcome.claim.paper, outcome.numbers) for outcome in judged if outcome.difference and outcome.low is not None
    }
    return {
        "studies": len({outcome.directory for outcome in judged if outcome.verdict != UNTESTED}),
        "claims": _counts([outcome for outcome in judged if not outcome.claim.ours]),
        "controls": _counts([outcome for outcome in judged if outcome.claim.ours]),
        "families": {outcome.claim.paper: {"k": outcome.k, "level": 1 - stats.ERROR / outcome.k} for outcome in judged},
        "differences": len(differences),
        "by_chance": stats.ERROR * len(differences),
    }


def _counts(judged: Sequence[Judged]) -> dict[str, int]:
    once = distinct(judged)
    after = {
        f"{verdict}_after_{name}": sum(outcome.verdict == verdict and bool(getattr(outcome, name)) for outcome in once)
        for name in ("bonferroni", "holm")
        for verdict in DECIDED
    }
    return {
        "tested": len({(outcome.claim.paper, outcome.numbers) for outcome in once}),
        **{kind: sum(outcome.verdict == kind for outcome in once) for kind in (*DECIDED, INCONCLUSIVE)},
        "not_tested": sum(outcome.verdict == UNTESTED for outcome in judged),
        **after,
    }


def _judge(study: studies.Study, claim: Claim, about: str, available: contrasts.Known) -> Judged:
    total = claim.contrast(available)
    by_seed = contrasts.by_seed(study, total) if total else {}
    values = list(by_seed.values())
    low, high = map(_rounded, results.interval(values, stats.level(claim.direction)))
    return Judged(
        claim=claim,
        directory=study.directory,
        about=about,
        formula=contrasts.formula(total) if total else "",
        effect=_rounded(statistics.fmean(values)) if values else None,
        low=low,
        high=high,
        by_seed=by_seed,
        verdict=stats.verdict(claim.direction, claim.margin, low, high) if by_seed else UNTESTED,
        difference=claim.direction in (stats.ABOVE, stats.BELOW) and bool(total and contrasts.is_difference(total)),
        p=stats.p_value(claim.direction, claim.margin, values),
        k=1,
        bonferroni=None,
        holm=None,
        note=_note(study, total, values),
    )


def _rounded(number: float | None) -> float | None:
    """Without digits that depend on the order of a sum: -0.155 prints as the same text with every Python and numpy."""
    return None if number is None else round(number, contrasts.DIGITS)


def _note(study: studies.Study, total: contrasts.Sum | None, values: Sequence[float]) -> str:
    """A note on a verdict, or the reason for having none."""
    n, planned = len(values), len(study.config["seeds"])
    so_far = " so far" * (study.result is None)
    notes = ["in progress"] if so_far else []
    if total is None:
        notes += [f"the study has no such branches{so_far}"]
    elif not n:
        notes += [f"no seed has all that is measured{so_far}"]
    elif n < planned:
        notes += [f"{n} of {planned} seeds have all that is measured{so_far}"]
    if n == 1:
        notes += ["a single seed has no interval"]
    elif n and min(values) == max(values):
        notes += ["all seeds agree to the last digit, which has no interval"]
    return "; ".join(notes)


def _corrected(judged: Sequence[Judged], claims: Sequence[Claim]) -> list[Judged]:
    """The claims with the results of the corrections, and a note on claims whose numbers occurred before."""
    result = list(judged)
    for paper in dict.fromkeys(outcome.claim.paper for outcome in judged):
        here = [i for i, outcome in enumerate(judged) if outcome.claim.paper == paper and outcome.by_seed]
        first: dict[Numbers, Claim] = {}
        for i in here:
            first.setdefault(judged[i].numbers, judged[i].claim)
        measured = {(judged[i].claim.study, judged[i].claim.id) for i in here}
        absent = {(claim.study, claim.id) for claim in claims if claim.paper == paper} - measured
        k = len(first) + len(absent)
        corrected = dict(zip(here, stats.holm([(judged[i].numbers, judged[i].p) for i in here], k), strict=True))
        for i, outcome in enumerate(judged):
            if outcome.claim.paper == paper:
                result[i] = dataclasses.replace(outcome, k=k)
            if i in corrected:
                result[i] = _with_corrections(result[i], corrected[i], first[outcome.numbers])
    return result


def _with_corrections(outcome: Judged, holm: float, first: Claim) -> Judged:
    decided = outcome.verdict in DECIDED
    copied = first is not outcome.claim
    same = [f"the same numbers as {first.study} / {first.id}, and counted with them"] if copied else []
    return dataclasses.replace(
        outcome,
        bonferroni=outcome.k * outcome.p < stats.ERROR if decided else None,
        holm=holm < stats.ERROR if decided else None,
        note="; ".join(filter(None, [outcome.note, *same])),
    )
