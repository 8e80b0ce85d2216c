"""Charts for the papers cited in appendix B of Berariu et al. 2021; their design is ours."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from plasticity_jax.analysis import studies
from plasticity_jax.analysis.claims import appendix_b
from plasticity_jax.analysis.plots import captions, curves, sketch, spec
from plasticity_jax.analysis.plots.captions import MINUS, effect
from plasticity_jax.analysis.plots.sketch import FRESH, WARM
from plasticity_jax.analysis.plots.spec import Chart, across
from plasticity_jax.analysis.studies import END, Study

FISHER = "trace of the Fisher matrix"
SHARPEST = "hessian_eigenvalue/1"
EIGENVALUE = "largest eigenvalue of the Hessian"


def critical_period(study: Study) -> list[Chart]:
    """Accuracy against the length of the deficit, and the Fisher trace over the first stage, which has the deficit."""
    scores = sketch.by_label(study)
    lengths = {kind: sketch.numbered(rf"{kind}-(\d+)", scores) for kind in ("blur", "clear")}
    series = [
        across("blurred images first", sketch.at({0.0: FRESH, **lengths["blur"]}, scores), "warm"),
        across("clear images first", sketch.at({0.0: FRESH, **lengths["clear"]}, scores), "other"),
    ]
    last = [max(found) for found in lengths.values() if found]
    effects = [captions.gap(scores, lengths["clear"][t], lengths["blur"][t]) for t in last[:1] if t in lengths["clear"]]
    traces = [
        spec.series(f"{label} images", sketch.by_step(study, kind, "fisher_trace", "before"), role)
        for kind, label, role in (("blur", "blurred", "warm"), ("clear", "clear", "other"))
    ]
    x_label = "epochs on blurred (or on clear) images first (0: none)"
    how: dict[str, Any] = {"form": "curve", "zero": True}
    return [
        sketch.chart(study, "critical_period", effects, x_label, series),
        sketch.chart(study, "critical_period_fisher", [], "updates", traces, FISHER, **how),
    ]


def when_to_regularise(study: Study) -> list[Chart]:
    """Accuracy by the part of training in which a regulariser was used."""
    scores = sketch.by_point(study, "regulariser")
    kinds = dict.fromkeys(kind for _, kind in scores)
    when = dict(enumerate(("never", "late", "early", "always")))
    series = [across(kind.replace("_", " "), {x: scores.get((b, kind), {}) for x, b in when.items()}) for kind in kinds]
    effects = [captions.gap(scores, ("early", kind), ("late", kind), f"early {MINUS} late, {kind}") for kind in kinds]
    ticks = tuple((float(x), name) for x, name in when.items())
    return [sketch.chart(study, "when_to_regularise", effects, "regularised", series, ticks=ticks, joined=False)]


def rate_batch(study: Study) -> list[Chart]:
    """Final accuracy and largest eigenvalue against learning rate / batch size, one series per batch size."""
    points = [(curves.parts(label)[1], label) for label in studies.labels(study)]
    batches = sorted({point["batch"] for point, _ in points}, key=float)
    ratios = sorted({float(point["rate"]) / float(point["batch"]) for point, _ in points})
    how: dict[str, Any] = {"scale": "log", "ticks": tuple((ratio, f"{ratio:.2g}") for ratio in ratios[::2])}
    charts = []
    for name, metric, at, y_label, claim, words in (
        ("", "test_accuracy", studies.WINDOW, sketch.ACCURACY, "ratio-better", f"largest {MINUS} smallest ratio"),
        ("_sharpness", SHARPEST, END, EIGENVALUE, "ratio-sharper", f"eigenvalue, smallest {MINUS} largest ratio"),
    ):
        values = {label: studies.values(study, label, metric, at) for _, label in points}
        series = [
            across(f"batch {b}", {float(p["rate"]) / float(b): values[label] for p, label in points if p["batch"] == b})
            for b in batches
        ]
        said = _said(study, "rate_batch", claim, words)
        charts.append(sketch.chart(study, f"rate_batch{name}", [said], "rate / batch", series, y_label, **how))
    return charts


def subspace(study: Study) -> list[Chart]:
    """The share of the gradient in the eigenspace of the largest eigenvalues, and the overlap of that space in time."""
    roles = {FRESH: "fresh", WARM: "warm"}
    names = {
        "": ("gradient_in_top", "share of the gradient in the top eigenspace", "mostly-fresh", "share"),
        "_stays": ("top_overlap_last", "overlap of the top eigenspace with the previous one", "stays-fresh", "overlap"),
    }
    charts = []
    for end, (metric, y_label, claim, word) in names.items():
        lines = [
            spec.series(label, sketch.by_step(study, label, metric, "tune"), role) for label, role in roles.items()
        ]
        said = _said(study, "subspace", claim, f"fresh networks, {word} {MINUS} 0.5")
        how: dict[str, Any] = {"scale": "symlog", "view": (0.0, 1.0)}
        charts.append(sketch.chart(study, f"subspace{end}", [said], "updates of tuning", lines, y_label, **how))
    return charts


def spectrum(study: Study) -> list[Chart]:
    """The density of the eigenvalues at the end of training, and the largest one over training, for every arm."""
    arms = studies.labels(study)
    quadratures = {label: _nodes(study, label) for label in arms}
    ends = [
        value
        for by_seed in quadratures.values()
        for nodes, _ in by_seed.values()
        for value in (nodes.min(), nodes.max())
    ]
    places = np.linspace(min(ends), max(ends), 200) if ends else np.zeros(0)
    densities = {
        label: {seed: _density(*pairs, places) for seed, pairs in by_seed.items()}
        for label, by_seed in quadratures.items()
    }
    lines = [spec.series(label, by_seed) for label, by_seed in densities.items()]
    largest = [spec.series(label, sketch.by_step(study, label, SHARPEST, "train")) for label in arms]
    said = [_said(study, "spectrum", "norm-flattens", f"largest / tenth, without {MINUS} with BatchNorm")]
    how: dict[str, Any] = {"form": "curve"}
    density = "density (logarithm to base 10)"
    top = max((y for one in lines for y in one.mean), default=0.0) + 0.5  # the intervals of few seeds reach far higher
    return [
        sketch.chart(
            study, "spectrum", said, "eigenvalues of the Hessian at the end", lines, density, **how, view=(-6.1, top)
        ),
        sketch.chart(study, "spectrum_largest", [], "updates", largest, EIGENVALUE, **how, zero=True),
    ]


CHARTS: Mapping[str, Callable[[Study], list[Chart]]] = {
    "critical_period": critical_period,
    "when_to_regularise": when_to_regularise,
    "rate_batch": rate_batch,
    "subspace": subspace,
    "spectrum": spectrum,
}


def _said(study: Study, name: str, claim: str, words: str) -> str:
    """The effect of a claim with its interval, as text."""
    (found,) = [each for each in appendix_b.CLAIMS if (each.study, each.id) == (name, claim)]
    unit = " points" if found.unit == "points" else ""  # others are named by the words
    return effect(words, sketch.of(study, found.contrast), unit)


def _nodes(study: Study, label: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """seed -> (nodes, weights) of the Lanczos quadrature at the end, for the seeds that have both."""
    places = sorted({m for m in study.table.metric.unique() if m.startswith("hessian_node/")})
    nodes = [studies.values(study, label, place, END) for place in places]
    weights = [studies.values(study, label, place.replace("node", "weight"), END) for place in places]
    seeds = set.intersection(*map(set, [*nodes, *weights])) if places else set()
    return {
        seed: (np.array([each[seed] for each in nodes]), np.array([each[seed] for each in weights]))
        for seed in sorted(seeds)
    }


def _density(nodes: np.ndarray, weights: np.ndarray, places: np.ndarray) -> dict[float, float]:
    """place -> log10 of the density, at least -6: Gaussians at the nodes with a hundredth of the range as deviation."""
    width = (places[-1] - places[0]) / 100 or 1.0
    bumps = np.exp(-0.5 * np.square((places[:, None] - nodes) / width)) / (width * np.sqrt(2 * np.pi))
    return dict(zip(places.tolist(), np.log10(np.maximum(bumps @ weights, 1e-6)).tolist(), strict=True))
