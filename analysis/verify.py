"""Every claim of the papers about the studies at hand: effect, interval, verdict, and what it was measured on.

    python -m analysis.claims DIR [DIR...] [--json FILE] [--markdown | --by_seeds]

`analysis/claims/` holds the claims, `analysis/effects/stats.py` the rule that gives the verdicts.
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from plasticity_jax import analysis, strict_json
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
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the --workdir of a study")
    parser.add_argument("--json", metavar="FILE", help="write the same for machines")
    parser.add_argument("--markdown", action="store_true", help="print a short table in Markdown instead")
    parser.add_argument(
        "--by_seeds", action="store_true", help="print the verdicts as seeds arrived: analysis/effects/looks.py"
    )
    options = parser.parse_args(argv)
    try:
        out = paths.given(options.json) if options.json else None
        read = [studies.read(directory) for directory in analysis.distinct(map(paths.given, options.directories))]
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
                "margin": each.claim.margin if each.claim.direction in (stats.NOT_BELOW, stats.WITHIN) else None,
                "paper": each.claim.paper,
                "ours": each.claim.ours,
                "directory": str(each.directory),
                **{key: getattr(each, key) for key in ("formula", "effect", "low", "high", "n")},
                "level": stats.level(each.claim.direction),
                "by_seed": {str(seed): value for seed, value in each.by_seed.items()},
                **{key: getattr(each, key) for key in ("verdict", "p", "k", "bonferroni", "holm", "note")},
            }
            for each in judged
        ],
    }


def table(found: Sequence[studies.Study], judged: Sequence[Judged]) -> str:
    """The same for people, in at most 110 columns, grouped by study."""
    lines: list[str] = []
    for directory in dict.fromkeys(each.directory for each in judged):
        of_study = [each for each in judged if each.directory == directory]
        lines += [*_wrap(f"{of_study[0].claim.study}: {directory}", ""), *_wrap(of_study[0].about, "  "), ""]
        lines += [COLUMNS.format("claim", "holds if", "effect", "95 % interval", "n", "verdict", "corrected")]
        lines += [line for each in of_study for line in _rows(each)] + [""]
    for study in found:
        if study.directory not in {each.directory for each in judged}:
            lines += [
                f"{study.directory}: there are no claims about {f'study {study.name}' if study.name else 'it'}",
                "",
            ]
    return "\n".join([*lines, *_summary(judged)])


def markdown(judged: Sequence[Judged]) -> str:
    """What could be judged, a row each: a table in Markdown of the papers' claims, and one of our own controls.

    Bold is what holds after Bonferroni too, in italics what holds after Holm only.
    """
    lines: list[str] = []
    for ours, name in zip((False, True), GROUPS.values(), strict=True):
        of_group = [each for each in judged if each.claim.ours == ours and each.verdict != UNTESTED]
        if of_group:
            head = ["| study | claim | effect | 95 % interval | n | verdict |", "|---|---|---:|---|---:|---|"]
            lines += [f"{name}:", "", *head, *map(_markdown_row, of_group), ""]
    return "\n".join([*lines, *_summary(judged)])


def _markdown_row(each: Judged) -> str:
    effect, between = _effect(each)
    mark = "**" if each.bonferroni else "*" if each.holm else ""
    cells = [each.claim.study, each.claim.statement, effect, between, each.n, f"{mark}{each.verdict}{mark}"]
    return f"| {' | '.join(map(str, cells))} |"


def _effect(each: Judged) -> tuple[str, str]:
    """The effect and its interval in words; the level where it is not 95%."""
    digits = ",.2f" if max(map(abs, each.by_seed.values()), default=0) < 1000 else ",.0f"
    effect = "-" if each.effect is None else format(each.effect, "+" + digits)
    level = " 90 %" if each.claim.direction == stats.WITHIN else ""
    return effect, "-" if each.low is None else f"[{each.low:+{digits}}, {each.high:+{digits}}]{level}"


def _rows(each: Judged) -> list[str]:
    """A claim: its numbers, then what it says and what was measured."""
    claim = each.claim
    target = {
        stats.ABOVE: "> 0",
        stats.BELOW: "< 0",
        stats.NOT_BELOW: f"> -{claim.margin:g}",
        stats.WITHIN: f"-{claim.margin:g} to {claim.margin:g}",
    }[claim.direction]
    effect, between = _effect(each)
    numbers = COLUMNS.format(claim.id, target, effect, between, each.n, each.verdict, remains(each))
    what = f"Measured: {each.formula}; in {claim.unit}." if each.formula else ""
    text = [f"{claim.statement} ({claim.source})", what, f"Note: {each.note}." if each.note else ""]
    return [numbers, *(line for part in text for line in _wrap(part, "      "))]


def remains(each: Judged) -> str:
    """What is left of a verdict after the corrections."""
    if each.holm is None:
        return "-"
    return "holds" if each.bonferroni else "Holm only" if each.holm else "lost"


def said(judged: Sequence[Judged]) -> list[str]:
    """The summary in sentences: claims of papers, controls of our own, the corrections, and chance."""
    counts = summary(judged)
    ours = [each.claim.ours for each in judged]
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


def _counted(own: dict[str, int], group: str, among: int) -> str:
    """One sentence of counts, and what remains after either correction."""
    k, decided = own["tested"], own["reproduced"] + own["contradicted"]
    bonferroni, holm = (
        sum(own[f"{verdict}_after_{name}"] for verdict in ("reproduced", "contradicted")) for name in CORRECTIONS
    )
    where = f" in {among} {_plural(among, 'study', 'studies')}" if group == "claims" else ""
    return (
        f"{GROUPS[group]}: {k} {_plural(k, 'contrast', 'contrasts')} tested{where}: {own['reproduced']} reproduced, "
        f"{own['contradicted']} contradicted, {own['inconclusive']} inconclusive; {own['not_tested']} not tested here. "
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
