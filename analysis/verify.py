"""Test the claims of the papers on studies: effect, interval, verdict, and the scale of the measurement.

    python -m analysis.claims DIR [DIR...] [--json FILE] [--markdown | --by_seeds]

`analysis/claims/` holds the claims, `analysis/effects/stats.py` the rule that gives the verdicts.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from plasticity_jax import strict_json
from plasticity_jax.analysis import scale, studies
from plasticity_jax.analysis.effects import looks, stats
from plasticity_jax.analysis.effects.judgement import Judged, judge, summary
from plasticity_jax.analysis.effects.stats import UNTESTED
from plasticity_jax.config import paths
from plasticity_jax.errors import LabError
from plasticity_jax.runner import output

WIDTH = 110  # columns
COLUMNS = "  {:<22} {:>9}  {:>9}  {:<22} {:>3}  {:<12}  {}"
GROUPS = {"claims": "Claims of papers", "controls": "Controls of our own"}
CORRECTIONS = ("bonferroni", "holm")


def main(argv: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity claims", description=__doc__.splitlines()[0])
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the --workdir of a study or sweep")
    parser.add_argument("--json", metavar="FILE", help="also write the verdicts as JSON")
    parser.add_argument("--markdown", action="store_true", help="print a short table in Markdown instead")
    parser.add_argument(
        "--by_seeds", action="store_true", help="print the verdicts while seeds arrive: analysis/effects/looks.py"
    )
    options = parser.parse_args(argv)
    try:
        out = paths.given(options.json) if options.json else None
        read = list(studies.read_all(options.directories))
        judged = judge(read)
        planned = {study.directory: looks.planned(study.directory, study.config) for study in read}
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(strict_json.dumps(to_json(read, judged), indent=2) + "\n")
    except (LabError, OSError) as e:
        sys.exit(f"analysis.claims: {e}")
    if options.by_seeds:
        print(looks.table(judged, planned))
    else:
        print(markdown(judged) if options.markdown else table(read, judged))


def to_json(read: Sequence[studies.Study], judged: Sequence[Judged]) -> dict[str, Any]:
    """The content of the table as plain JSON values."""
    return {
        "summary": summary(judged),
        "studies": [
            {
                "directory": str(study.directory),
                "study": study.name,
                "about": scale.describe(study),
                "in_progress": study.result is None,
                "has_claims": any(outcome.directory == study.directory for outcome in judged),
            }
            for study in read
        ],
        "claims": [
            {
                **{
                    key: getattr(outcome.claim, key)
                    for key in ("id", "study", "statement", "source", "direction", "unit")
                },
                "margin": outcome.claim.margin if outcome.claim.direction in (stats.NOT_BELOW, stats.WITHIN) else None,
                "paper": outcome.claim.paper,
                "ours": outcome.claim.ours,
                "directory": str(outcome.directory),
                **{key: getattr(outcome, key) for key in ("formula", "effect", "low", "high", "n")},
                "level": stats.level(outcome.claim.direction),
                "by_seed": {str(seed): value for seed, value in outcome.by_seed.items()},
                **{key: getattr(outcome, key) for key in ("verdict", "p", "k", "bonferroni", "holm", "note")},
            }
            for outcome in judged
        ],
    }


def table(read: Sequence[studies.Study], judged: Sequence[Judged]) -> str:
    """The results as text, in at most 110 columns, grouped by study."""
    lines: list[str] = []
    for directory in dict.fromkeys(outcome.directory for outcome in judged):
        of_study = [outcome for outcome in judged if outcome.directory == directory]
        lines += [*_wrap(f"{of_study[0].claim.study}: {directory}", ""), *_wrap(of_study[0].about, "  "), ""]
        lines += [COLUMNS.format("claim", "holds if", "effect", "95 % interval", "n", "verdict", "corrected")]
        lines += [line for outcome in of_study for line in _rows(outcome)] + [""]
    for study in read:
        if study.directory not in {outcome.directory for outcome in judged}:
            lines += [
                f"{study.directory}: there are no claims about {f'study {study.name}' if study.name else 'it'}",
                "",
            ]
    return "\n".join([*lines, *_summary(judged)])


def markdown(judged: Sequence[Judged]) -> str:
    """Markdown tables of the tested claims of papers, and of our own controls.

    Verdicts that hold after Bonferroni are bold, those that hold after Holm only are in italics.
    """
    lines: list[str] = []
    for ours, name in zip((False, True), GROUPS.values(), strict=True):
        of_group = [outcome for outcome in judged if outcome.claim.ours == ours and outcome.verdict != UNTESTED]
        if of_group:
            head = ["| study | claim | effect | 95 % interval | n | verdict |", "|---|---|---:|---|---:|---|"]
            lines += [f"{name}:", "", *head, *map(_markdown_row, of_group), ""]
    return "\n".join([*lines, *_summary(judged)])


def _markdown_row(outcome: Judged) -> str:
    effect, between = _effect(outcome)
    mark = "**" if outcome.bonferroni else "*" if outcome.holm else ""
    cells = [outcome.claim.study, outcome.claim.statement, effect, between, outcome.n, f"{mark}{outcome.verdict}{mark}"]
    return f"| {' | '.join(map(str, cells))} |"


def _effect(outcome: Judged) -> tuple[str, str]:
    """The effect and its interval as text, with the level if it is not 95%."""
    digits = ",.2f" if max(map(abs, outcome.by_seed.values()), default=0) < 1000 else ",.0f"
    effect = "-" if outcome.effect is None else format(outcome.effect, "+" + digits)
    level = " 90 %" if outcome.claim.direction == stats.WITHIN else ""
    return effect, "-" if outcome.low is None else f"[{outcome.low:+{digits}}, {outcome.high:+{digits}}]{level}"


def _rows(outcome: Judged) -> list[str]:
    """The lines for a claim: its numbers, its statement and its formula."""
    claim = outcome.claim
    target = {
        stats.ABOVE: "> 0",
        stats.BELOW: "< 0",
        stats.NOT_BELOW: f"> -{claim.margin:g}",
        stats.WITHIN: f"-{claim.margin:g} to {claim.margin:g}",
    }[claim.direction]
    effect, between = _effect(outcome)
    numbers = COLUMNS.format(claim.id, target, effect, between, outcome.n, outcome.verdict, remains(outcome))
    what = f"Measured: {outcome.formula}; in {claim.unit}." if outcome.formula else ""
    text = [f"{claim.statement} ({claim.source})", what, f"Note: {outcome.note}." if outcome.note else ""]
    return [numbers, *(line for part in text for line in _wrap(part, "      "))]


def remains(outcome: Judged) -> str:
    """The result of the corrections for a verdict."""
    if outcome.holm is None:
        return "-"
    return "holds" if outcome.bonferroni else "Holm only" if outcome.holm else "lost"


def said(judged: Sequence[Judged]) -> list[str]:
    """The summary in sentences: claims of papers, our own controls, corrections, and chance."""
    counts = summary(judged)
    ours = [outcome.claim.ours for outcome in judged]
    lines = [_counted(counts["claims"], "claims", counts["studies"])]
    lines += [_counted(counts["controls"], "controls", counts["studies"])] if any(ours) else []
    if counts["families"]:
        sizes = ", ".join(f"{family['k']} of {paper}" for paper, family in counts["families"].items())
        lines.append(f"Both correct for all contrasts of a paper, tested here or not: {sizes}.")
    if m := counts["differences"]:
        lines.append(
            f"{m} of the contrasts {_plural(m, 'is', 'are')} zero if nothing has any effect; at 95 % each, about "
            f"{counts['by_chance']:.1f} of them would exclude it by chance."
        )
    return lines


def _counted(counts: dict[str, int], group: str, among: int) -> str:
    """One sentence of counts, with those that hold after each correction."""
    k, decided = counts["tested"], counts["reproduced"] + counts["contradicted"]
    bonferroni, holm = (
        sum(counts[f"{verdict}_after_{name}"] for verdict in ("reproduced", "contradicted")) for name in CORRECTIONS
    )
    where = f" in {among} {_plural(among, 'study', 'studies')}" if group == "claims" else ""
    return (
        f"{GROUPS[group]}: {k} {_plural(k, 'contrast', 'contrasts')} tested{where}: {counts['reproduced']} reproduced, "
        f"{counts['contradicted']} contradicted, {counts['inconclusive']} inconclusive; {counts['not_tested']} not "
        "tested here. "
        f"Of {decided} {_plural(decided, 'verdict', 'verdicts')} {bonferroni} {_plural(bonferroni, 'holds', 'hold')} "
        f"after Bonferroni, {holm} after Holm."
    )


def _plural(n: int, one: str, many: str) -> str:
    return one if n == 1 else many


def _summary(judged: Sequence[Judged]) -> list[str]:
    return [line for text in said(judged) for line in _wrap(text, "")]


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
