"""HTML for the verdicts of `analysis.claims`.

    verdicts.section(judge(studies))

The section has the counts of verdicts, a table of the tested claims with a drawing of each interval, and the untested
claims.
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
WIDTH, HEIGHT, RADIUS = 160, 20, 4  # of the drawing of an interval and of its mean, in pixels
MOST = 0.9  # quantile of the interval ends that sets the scale, so that an outlier does not shrink all other intervals


def section(judged: Sequence[Judged]) -> Html:
    """The section about claims."""
    if not judged:
        return tag("p", "There are no claims about these studies.")
    tested = [outcome for outcome in judged if outcome.verdict != UNTESTED]
    untested = [outcome for outcome in judged if outcome.verdict == UNTESTED]
    explained = (
        "An effect is the mean over seeds of differences between runs of the same seed, with its 95% Student's t "
        "interval, or the 90% interval (TOST) for claims of equality. The drawing shows the interval around zero, on "
        "one scale per unit; the equivalence margin is shaded."
    )
    notes = [tag("p", text, class_="note") for text in (explained, *verify.said(judged))]
    head = ["claim", "verdict", "effect", "", "seeds"]
    rows = [_row(outcome, _reach(tested, outcome), _where(tested, outcome)) for outcome in tested]
    return tag(
        "div",
        *_counts(judged),
        *((*notes, table(head, rows, numbers=[2], wide=True)) if rows else ()),
        _untested(untested),
        class_="claims",
    )


def _counts(judged: Sequence[Judged]) -> list[Html]:
    """The counts of the verdicts on the papers' claims, and on our own controls if there are any."""
    counts = summary(judged)
    made = []
    for group, name in verify.GROUPS.items():
        numbers = [tag("span", _badge(kind), f" {counts[group][kind.replace(' ', '_')]}") for kind in COLOURS]
        if any(outcome.claim.ours == (group == "controls") for outcome in judged):
            made.append(tag("p", tag("b", name), *numbers, class_="counts"))
    return made


def strip(outcome: Judged, reach: float) -> Html | None:
    """A drawing of an effect and its interval around zero, clipped at +-`reach`; None without an interval."""
    if outcome.effect is None or outcome.low is None or outcome.high is None:
        return None

    def place(value: float) -> float:
        share = max(-1.0, min(1.0, value / reach if reach else 0.0))
        return round(WIDTH / 2 + share * (WIDTH / 2 - RADIUS), 1)

    colour, middle = COLOURS[outcome.verdict], HEIGHT / 2
    low = -outcome.claim.margin if outcome.claim.direction in (NOT_BELOW, WITHIN) else 0.0
    high = outcome.claim.margin if outcome.claim.direction == WITHIN else 0.0
    return tag(
        "svg",
        tag("rect", x=place(low), width=place(high) - place(low), y=0, height=HEIGHT) if high > low else None,
        tag("line", x1=place(0), x2=place(0), y1=0, y2=HEIGHT),
        tag("line", x1=place(outcome.low), x2=place(outcome.high), y1=middle, y2=middle, class_=colour),
        tag("circle", cx=place(outcome.effect), cy=middle, r=RADIUS, class_=colour),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="strip",
        role="img",
        aria_label=f"{_number(outcome.effect, outcome)}, {_interval(outcome)}",
    )


def _row(outcome: Judged, reach: float, where: str) -> list[object]:
    claim = outcome.claim
    notes = [f"measured: {outcome.formula}" if outcome.formula else "", outcome.note]
    seeds = ", ".join(f"seed {seed}: {_number(value, outcome)}" for seed, value in outcome.by_seed.items())
    corrected = {
        "holds": "holds after Bonferroni and Holm",
        "Holm only": "holds after Holm, lost after Bonferroni",
        "lost": "lost after Bonferroni and Holm",
    }.get(verify.remains(outcome))
    return [
        join(
            [
                claim.statement,
                tag("small", f"{where} / {claim.id}; {claim.source}"),
                *(tag("small", note) for note in notes if note),
            ]
        ),
        join([_badge(outcome.verdict), tag("small", f"expected {_target(outcome)}"), tag("small", corrected)]),
        join([_number(outcome.effect, outcome), tag("small", _interval(outcome)), tag("small", claim.unit)]),
        strip(outcome, reach),
        tag("details", tag("summary", outcome.n), tag("small", seeds)),
    ]


def _untested(judged: Sequence[Judged]) -> Html | None:
    if not judged:
        return None
    rows = [
        [join([outcome.claim.statement, tag("small", outcome.claim.source)]), outcome.claim.study, outcome.note]
        for outcome in judged
    ]
    summary = tag("summary", f"{len(judged)} not tested here")
    return tag("details", summary, table(["claim", "study", "why"], rows))


def _badge(verdict: str) -> Html:
    return tag("span", verdict, class_=f"badge {COLOURS[verdict]}")


def _reach(tested: Sequence[Judged], outcome: Judged) -> float:
    """The scale of the drawings for the unit of a claim: a high quantile of the interval ends."""
    alike = [other for other in tested if other.claim.unit == outcome.claim.unit]
    ends = [abs(end) for other in alike for end in (other.low, other.high) if end is not None]
    return float(np.quantile(ends, MOST)) if ends else 1.0


def _where(tested: Sequence[Judged], outcome: Judged) -> str:
    """The study of a claim, with the directory if several directories hold this study."""
    alike = {other.directory for other in tested if other.claim.study == outcome.claim.study}
    return outcome.claim.study if len(alike) == 1 else f"{outcome.claim.study} ({outcome.directory})"


def _target(outcome: Judged) -> str:
    margin = f"{outcome.claim.margin:g}"
    return {
        ABOVE: "above 0",
        BELOW: "below 0",
        NOT_BELOW: f"above {MINUS}{margin}",
        WITHIN: f"within \N{PLUS-MINUS SIGN}{margin}",
    }[outcome.claim.direction]


def _number(value: float | None, outcome: Judged) -> str:
    if value is None:
        return ""
    digits = 2 if max(map(abs, outcome.by_seed.values()), default=0.0) < 1000 else 0
    return f"{value:+,.{digits}f}".replace("-", MINUS)


def _interval(outcome: Judged) -> str:
    level = " 90%" if outcome.claim.direction == WITHIN else ""
    return "" if outcome.low is None else f"[{_number(outcome.low, outcome)}, {_number(outcome.high, outcome)}]{level}"
