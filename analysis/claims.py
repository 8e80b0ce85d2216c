"""Every claim of the papers about the studies at hand: effect, interval, verdict, and what it was measured on.

    python -m analysis.claims DIR [DIR...] [--json FILE] [--markdown]

`analysis/papers.py` holds the claims, `analysis/contrasts.py` the rule that gives the verdicts.
"""

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import contrasts, scale, studies
from analysis.contrasts import CONTRADICTED, INCONCLUSIVE, REPRODUCED, UNTESTED, WITHIN, Claim
from analysis.papers import CLAIMS
from plasticity_jax import output, paths, results, strict_json
from plasticity_jax.errors import LabError

WIDTH = 110  # columns
COLUMNS = "  {:<22} {:>9}  {:>9}  {:<20} {:>3}  {:<12}  {}"


@dataclasses.dataclass(frozen=True)
class Judged:
    """A claim and what one study says of it.

    about: the data and the scale of the study.  formula: what was measured, as `fresh - pretrain+tune`; may be empty.
    effect, low, high: in `claim.unit`, with the 95% interval; None where there are too few seeds.
    by_seed: the effect of each seed.  holds: whether the verdict is the same after Bonferroni; None without a verdict.
    note: why there is no verdict, and whether the study is in progress; may be empty.
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
    holds: bool | None
    note: str

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.by_seed)


def main(argv: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="python -m analysis.claims", description=__doc__.splitlines()[0])
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the --workdir of a study")
    parser.add_argument("--json", metavar="FILE", help="write the same for machines")
    parser.add_argument("--markdown", action="store_true", help="print a short table in Markdown instead")
    options = parser.parse_args(argv)
    try:
        out = paths.given(options.json) if options.json else None
        found = [studies.read(directory) for directory in dict.fromkeys(map(paths.given, options.directories))]
        judged = judge(found)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(strict_json.dumps(to_json(found, judged), indent=2) + "\n")
    except (LabError, OSError) as e:
        sys.exit(f"analysis.claims: {e}")
    print(markdown(judged) if options.markdown else table(found, judged))


def judge(found: Iterable[studies.Study], claims: Iterable[Claim] = CLAIMS) -> list[Judged]:
    """Every claim about each study, by study in the order of the claims; those that cannot be tested say why."""
    claims, found = list(claims), list(found)
    names = dict.fromkeys(claim.study for claim in claims)
    judged = []
    for study in (study for name in names for study in found if study.name == name):
        about, known = scale.describe(study), contrasts.known(study)
        judged += [_judge(study, claim, about, known) for claim in claims if claim.study == study.name]
    level = corrected(judged)
    return [dataclasses.replace(each, holds=_holds(each, level)) for each in judged]


def tested(judged: Iterable[Judged]) -> int:
    """k, the number of contrasts tested."""
    return sum(each.verdict != UNTESTED for each in judged)


def corrected(judged: Iterable[Judged]) -> float:
    """The level of an interval after Bonferroni's correction for all contrasts tested, 1 - 0.05/k."""
    return 1 - (1 - results.LEVEL) / max(tested(judged), 1)


def _judge(study: studies.Study, claim: Claim, about: str, known: contrasts.Known) -> Judged:
    total = claim.contrast(known)
    by_seed = contrasts.by_seed(study, total) if total else {}
    values = list(by_seed.values())
    low, high = results.interval(values)
    verdict = contrasts.verdict(claim.direction, claim.margin, low, high) if by_seed else UNTESTED
    return Judged(
        claim=claim,
        directory=study.directory,
        about=about,
        formula=contrasts.formula(total) if total else "",
        effect=sum(values) / len(values) if values else None,
        low=low,
        high=high,
        by_seed=by_seed,
        verdict=verdict,
        holds=None,
        note=_note(study, total, len(by_seed)),
    )


def _note(study: studies.Study, total: contrasts.Sum | None, n: int) -> str:
    """What else there is to know about a verdict on n seeds, or about why there is none."""
    so_far = " so far" * (study.result is None)
    notes = ["in progress"] if so_far else []
    if total is None:
        notes += [f"the study has no such branches{so_far}"]
    elif not n:
        notes += [f"no seed has all that is measured{so_far}"]
    elif n < len(study.config["seeds"]):
        notes += [f"{n} of {len(study.config['seeds'])} seeds have all that is measured{so_far}"]
    return "; ".join([*notes, *(["a single seed has no interval"] if n == 1 else [])])


def _holds(judged: Judged, level: float) -> bool | None:
    if judged.verdict not in (REPRODUCED, CONTRADICTED):
        return None
    low, high = results.interval(list(judged.by_seed.values()), level)
    return contrasts.verdict(judged.claim.direction, judged.claim.margin, low, high) == judged.verdict


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """How many contrasts were tested and what came out; `level` is that after Bonferroni."""
    verdicts = [each.verdict for each in judged]
    return {
        "tested": tested(judged),
        "studies": len({each.directory for each in judged if each.verdict != UNTESTED}),
        **{kind.replace(" ", "_"): verdicts.count(kind) for kind in (REPRODUCED, CONTRADICTED, INCONCLUSIVE)},
        "not_tested": verdicts.count(UNTESTED),
        "level": corrected(judged),
        "reproduced_after_bonferroni": sum(each.verdict == REPRODUCED and bool(each.holds) for each in judged),
        "contradicted_after_bonferroni": sum(each.verdict == CONTRADICTED and bool(each.holds) for each in judged),
    }


def to_json(found: Sequence[studies.Study], judged: Sequence[Judged]) -> dict[str, Any]:
    """What the table says, as plain JSON values."""
    return {
        "summary": summary(judged),
        "studies": [
            {
                "directory": str(study.directory),
                "study": study.name,
                "about": scale.describe(study),
                "in_progress": study.result is None,
                "has_claims": any(each.directory == study.directory for each in judged),
            }
            for study in found
        ],
        "claims": [
            {
                **{
                    key: getattr(each.claim, key) for key in ("id", "study", "statement", "source", "direction", "unit")
                },
                "margin": each.claim.margin if each.claim.direction == WITHIN else None,
                "directory": str(each.directory),
                **{key: getattr(each, key) for key in ("formula", "effect", "low", "high", "n")},
                "by_seed": {str(seed): value for seed, value in each.by_seed.items()},
                **{key: getattr(each, key) for key in ("verdict", "holds", "note")},
            }
            for each in judged
        ],
    }


def table(found: Sequence[studies.Study], judged: Sequence[Judged]) -> str:
    """The same for people, in at most 110 columns, grouped by study."""
    lines: list[str] = []
    for directory in dict.fromkeys(each.directory for each in judged):
        own = [each for each in judged if each.directory == directory]
        lines += [*_wrap(f"{own[0].claim.study}: {directory}", ""), *_wrap(own[0].about, "  "), ""]
        lines += [COLUMNS.format("claim", "holds if", "effect", "95 % interval", "n", "verdict", "Bonferroni")]
        lines += [line for each in own for line in _rows(each)] + [""]
    for study in found:
        if study.directory not in {each.directory for each in judged}:
            lines += [
                f"{study.directory}: there are no claims about {f'study {study.name}' if study.name else 'it'}",
                "",
            ]
    return "\n".join([*lines, *_summary(judged)])


def markdown(judged: Sequence[Judged]) -> str:
    """What could be judged, a row each, as a table in Markdown; bold what holds after Bonferroni too."""
    lines = ["| study | claim | effect | 95 % interval | n | verdict |", "|---|---|---:|---|---:|---|"]
    for each in judged:
        if each.verdict != UNTESTED:
            effect, between = _effect(each)
            verdict = f"**{each.verdict}**" if each.holds else each.verdict
            cells = [each.claim.study, each.claim.statement, effect, between, each.n, verdict]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", *_summary(judged)])


def _effect(each: Judged) -> tuple[str, str]:
    """The effect and its interval in words."""
    digits = ",.2f" if max(map(abs, each.by_seed.values()), default=0) < 1000 else ",.0f"
    effect = "-" if each.effect is None else format(each.effect, "+" + digits)
    return effect, "-" if each.low is None else f"[{each.low:+{digits}}, {each.high:+{digits}}]"


def _rows(each: Judged) -> list[str]:
    """A claim: its numbers, then what it says and what was measured."""
    claim = each.claim
    target = {"above": "> 0", "below": "< 0"}.get(claim.direction, f"-{claim.margin:g} to {claim.margin:g}")
    effect, between = _effect(each)
    holds = {True: "holds", False: "lost", None: "-"}[each.holds]
    numbers = COLUMNS.format(claim.id, target, effect, between, each.n, each.verdict, holds)
    what = f"Measured: {each.formula}; in {claim.unit}." if each.formula else ""
    text = [f"{claim.statement} ({claim.source})", what, f"Note: {each.note}." if each.note else ""]
    return [numbers, *(line for part in text for line in _wrap(part, "      "))]


def _summary(judged: Sequence[Judged]) -> list[str]:
    counts = summary(judged)
    k, among = counts["tested"], counts["studies"]
    decided = counts["reproduced"] + counts["contradicted"]
    remain = counts["reproduced_after_bonferroni"] + counts["contradicted_after_bonferroni"]
    lines = [
        f"{k} contrast{'s'[: k != 1]} tested in {among} stud{'y' if among == 1 else 'ies'}: "
        f"{counts['reproduced']} reproduced, {counts['contradicted']} contradicted, {counts['inconclusive']} "
        f"inconclusive; {counts['not_tested']} not tested here.",
        f"At 95 % each, about {(1 - results.LEVEL) * k:.1f} of {k} would exclude zero by chance if nothing had any "
        f"effect; with Bonferroni (intervals of {100 * counts['level']:.4g} %) {remain} of {decided} verdicts remain.",
    ]
    return [line for text in lines for line in _wrap(text, "")]


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


if __name__ == "__main__":
    main()
