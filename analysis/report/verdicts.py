"""The verdicts of `analysis.claims` as a part of a page.

    verdicts.section(judge(found))

Counts come first, then a table of what was tested, each effect with a picture of its interval, then what was not.
"""

from collections.abc import Sequence

import numpy as np

from plasticity_jax.analysis import verify
from plasticity_jax.analysis.effects.judgement import Judged, summary
from plasticity_jax.analysis.effects.stats import (
    ABOVE,
    BELOW,
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_BELOW,
    REPRODUCED,
    UNTESTED,
    WITHIN,
)
from plasticity_jax.analysis.report.page import Html, join, table, tag

COLOURS = {REPRODUCED: "good", CONTRADICTED: "bad", INCONCLUSIVE: "open", UNTESTED: "none"}
MINUS = "\N{MINUS SIGN}"
WIDTH, HEIGHT, RADIUS = 160, 20, 4  # of a strip and its mark, in pixels
MOST = 0.9  # share of the intervals that strips show whole; an effect of 50 points must not make points of all others


def section(judged: Sequence[Judged]) -> Html:
    """Everything that the page says of the claims."""
    if not judged:
        return tag("p", "There are no claims about these studies.")
    tested = [each for each in judged if each.verdict != UNTESTED]
    untested = [each for each in judged if each.verdict == UNTESTED]
    explained = (
        "An effect is a mean over seeds of differences that are taken seed by seed, with its 95% interval by Student's "
        "t, or where two are claimed to be equal the 90% interval (TOST). A picture shows the interval around zero, to "
        "one scale for each unit; shaded is the margin within which a difference counts as none."
    )
    notes = [tag("p", text, class_="note") for text in (explained, *verify.said(judged))]
    head = ["claim", "verdict", "effect", "", "seeds"]
    rows = [_row(each, _reach(tested, each), _where(tested, each)) for each in tested]
    return tag(
        "div",
        *_counts(judged),
        *((*notes, table(head, rows, numbers=[2], wide=True)) if rows else ()),
        _untested(untested),
        class_="claims",
    )


def _counts(judged: Sequence[Judged]) -> list[Html]:
    """How often each verdict came out: of the papers' claims, and of our own controls if there are any."""
    counts = summary(judged)
    made = []
    for group, name in verify.GROUPS.items():
        numbers = [tag("span", _badge(kind), f" {counts[group][kind.replace(' ', '_')]}") for kind in COLOURS]
        if any(each.claim.ours == (group == "controls") for each in judged):
            made.append(tag("p", tag("b", name), *numbers, class_="counts"))
    return made


def strip(each: Judged, reach: float) -> Html | None:
    """A picture of an effect and its interval around zero, `reach` to either side; what lies beyond is cut off."""
    if each.effect is None or each.low is None or each.high is None:
        return None

    def place(value: float) -> float:
        share = max(-1.0, min(1.0, value / reach if reach else 0.0))
        return round(WIDTH / 2 + share * (WIDTH / 2 - RADIUS), 1)

    colour, middle = COLOURS[each.verdict], HEIGHT / 2
    low = -each.claim.margin if each.claim.direction in (NOT_BELOW, WITHIN) else 0.0
    high = each.claim.margin if each.claim.direction == WITHIN else 0.0
    return tag(
        "svg",
        tag("rect", x=place(low), width=place(high) - place(low), y=0, height=HEIGHT) if high > low else None,
        tag("line", x1=place(0), x2=place(0), y1=0, y2=HEIGHT),
        tag("line", x1=place(each.low), x2=place(each.high), y1=middle, y2=middle, class_=colour),
        tag("circle", cx=place(each.effect), cy=middle, r=RADIUS, class_=colour),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="strip",
        role="img",
        aria_label=f"{_number(each.effect, each)}, {_interval(each)}",
    )


def _row(each: Judged, reach: float, where: str) -> list[object]:
    claim = each.claim
    notes = [f"measured: {each.formula}" if each.formula else "", each.note]
    seeds = ", ".join(f"seed {seed}: {_number(value, each)}" for seed, value in each.by_seed.items())
    corrected = {
        "holds": "holds after Bonferroni and Holm",
        "Holm only": "holds after Holm, lost after Bonferroni",
        "lost": "lost after Bonferroni and Holm",
    }.get(verify.remains(each))
    return [
        join(
            [
                claim.statement,
                tag("small", f"{where} / {claim.id}; {claim.source}"),
                *(tag("small", note) for note in notes if note),
            ]
        ),
        join([_badge(each.verdict), tag("small", f"expected {_target(each)}"), tag("small", corrected)]),
        join([_number(each.effect, each), tag("small", _interval(each)), tag("small", claim.unit)]),
        strip(each, reach),
        tag("details", tag("summary", each.n), tag("small", seeds)),
    ]


def _untested(judged: Sequence[Judged]) -> Html | None:
    if not judged:
        return None
    rows = [
        [join([each.claim.statement, tag("small", each.claim.source)]), each.claim.study, each.note] for each in judged
    ]
    summary = tag("summary", f"{len(judged)} not tested here")
    return tag("details", summary, table(["claim", "study", "why"], rows))


def _badge(verdict: str) -> Html:
    return tag("span", verdict, class_=f"badge {COLOURS[verdict]}")


def _reach(tested: Sequence[Judged], each: Judged) -> float:
    """How far the strips of a unit reach, so that they can be compared: as far as most of its intervals do."""
    alike = [other for other in tested if other.claim.unit == each.claim.unit]
    ends = [abs(end) for other in alike for end in (other.low, other.high) if end is not None]
    return float(np.quantile(ends, MOST)) if ends else 1.0


def _where(tested: Sequence[Judged], each: Judged) -> str:
    """The study of a claim, and its directory where several directories hold it."""
    alike = {other.directory for other in tested if other.claim.study == each.claim.study}
    return each.claim.study if len(alike) == 1 else f"{each.claim.study} ({each.directory})"


def _target(each: Judged) -> str:
    margin = f"{each.claim.margin:g}"
    return {
        ABOVE: "above 0",
        BELOW: "below 0",
        NOT_BELOW: f"above {MINUS}{margin}",
        WITHIN: f"within \N{PLUS-MINUS SIGN}{margin}",
    }[each.claim.direction]


def _number(value: float | None, each: Judged) -> str:
    if value is None:
        return ""
    digits = 2 if max(map(abs, each.by_seed.values()), default=0.0) < 1000 else 0
    return f"{value:+,.{digits}f}".replace("-", MINUS)


def _interval(each: Judged) -> str:
    level = " 90%" if each.claim.direction == WITHIN else ""
    return "" if each.low is None else f"[{_number(each.low, each)}, {_number(each.high, each)}]{level}"
