"""Charts for the two-phase explanation: gradient noise and flatness beside accuracy.  The paper has no such figures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from plasticity_jax.analysis import studies
from plasticity_jax.analysis.claims import two_phases as account
from plasticity_jax.analysis.plots import captions, curves, sketch, spec
from plasticity_jax.analysis.plots.captions import MINUS, effect
from plasticity_jax.analysis.plots.spec import Chart, across
from plasticity_jax.analysis.reading import lines
from plasticity_jax.analysis.studies import Study

SHOWN = {"fresh": "fresh", "warm": "warm", "warm-10x": "other", "fresh-10x": "other"}  # shown over the steps: roles
NAMES = {
    "noise_trace": "noise of the gradient, tr(\N{GREEK CAPITAL LETTER SIGMA})",
    "preconditioned_noise_of_update": "noise of a step of Adam, rate tr/B",
    "noise_of_update": "noise of an update, rate tr(\N{GREEK CAPITAL LETTER SIGMA})/B",
    "adaptive_sharpness": "adaptive sharpness (nats)",
    "fisher_trace": "trace of the Fisher matrix",
    "hessian_eigenvalue/1": "largest eigenvalue of the Hessian",
    "test_accuracy": sketch.ACCURACY,
}


def two_phases(study: Study) -> list[Chart]:
    """Accuracy, noise and Fisher trace over the steps of tuning; final sharpness; accuracy against both."""
    names = {label: label for label in SHOWN}
    (accuracy,) = curves.learning(study, "two_phases", names=names) or (None,)
    over_steps = [
        _over_steps(study, f"two_phases_{name}", metric, said)
        for name, metric, said in (
            ("noise", "noise_trace", _said(study, f"fresh {MINUS} warm, first third of tuning", "noise-early")),
            ("adam", "preconditioned_noise_of_update", _said(study, f"fresh {MINUS} warm, first third", "noise-adam")),
            ("fisher", "fisher_trace", ""),
        )
    ]
    scores = sketch.by_label(study)
    widths = {label: studies.values(study, label, *account.SHARPNESS) for label in scores}
    bars = [across("at the end of tuning", dict(enumerate(widths.values())), "warm")]
    how: dict[str, Any] = {
        "ticks": tuple((float(x), label.replace("-", "-\n")) for x, label in enumerate(widths)),
        "joined": False,
    }
    width = sketch.chart(
        study,
        "two_phases_width",
        [_said(study, f"warm {MINUS} fresh", "wider", " nats")],
        "",
        bars,
        NAMES["adaptive_sharpness"],
        **how,
    )
    against = [
        _against(study, f"two_phases_by_{name}", scores, what, _said(study, "rank correlation", claim), name != "width")
        for name, what, claim in (
            ("noise", account.NOISE, "rank-noise"),
            ("adam", account.ADAM_NOISE, "rank-noise-adam"),
            ("width", account.SHARPNESS, "rank-width"),
        )
    ]
    return [*([accuracy] if accuracy else []), *over_steps, width, *against, *line(study)]


def why(study: Study) -> list[Chart]:
    """Accuracy, noise and curvature of fresh and warm networks over the updates of tuning."""
    gap = _said(study, f"fresh {MINUS} warm", "gap", " points")
    shown = [("accuracy", "test_accuracy", gap)]
    shown += [("noise", "noise_trace", ""), ("update", "noise_of_update", ""), ("fisher", "fisher_trace", "")]
    shown += [("width", "adaptive_sharpness", ""), ("curvature", "hessian_eigenvalue/1", "")]
    charts = [_over_steps(study, f"why_{name}", metric, said) for name, metric, said in shown]
    return [chart for chart in charts if chart.series]


def line(study: Study) -> list[Chart]:
    """The loss on the line between the fresh and the warm network of each seed; empty without `lines.json`."""
    measured = lines.read(study.directory)
    if not measured:
        return []
    by_seed = {seed: dict(enumerate(loss)) for seed, loss in measured.loss.items()}
    last = max(map(len, by_seed.values()), default=2) - 1
    shares = {seed: {x / last: y for x, y in losses.items()} for seed, losses in by_seed.items()}
    barriers = {
        seed: max(y - ((1 - x) * losses[0.0] + x * losses[1.0]) for x, y in losses.items())
        for seed, losses in shares.items()
    }
    said = effect(f"barrier between {measured.start} and {measured.end}", barriers, " nats")
    x_label = f"share of the way from {measured.start} to {measured.end}"
    how: dict[str, Any] = {"form": "curve", "zero": True}
    series = [spec.series("on the line", shares)]
    return [sketch.chart(study, f"{study.name}_line", [said], x_label, series, "loss on training images (nats)", **how)]


CHARTS: Mapping[str, Callable[[Study], list[Chart]]] = {"two_phases": two_phases}


def _over_steps(study: Study, name: str, metric: str, said: str) -> Chart:
    """A metric over the updates of the last stage."""
    series = [
        spec.series(label, sketch.by_step(study, label, metric, "tune"), role)
        for label, role in SHOWN.items()
        if label in studies.labels(study)
    ]
    what = NAMES.get(metric, metric)
    return sketch.chart(study, name, [said], "updates of tuning", series, what, scale="symlog", zero=True)


def _against(
    study: Study, name: str, scores: captions.Found, what: tuple[str, studies.When], said: str, wide: bool
) -> Chart:
    """Accuracy against the mean of another measurement, one point per branch; `wide`: on a logarithmic x axis."""
    means = {label: list(studies.values(study, label, *what).values()) for label in scores}
    series = [
        across(label, {float(np.mean(values)): scores[label]}, sketch.ROLES.get(label, "other"))
        for label, values in means.items()
        if values
    ]
    at = [x for one in series for x in one.x]
    how: dict[str, Any] = {"scale": "log" if wide else "linear", "ticks": _ticks(at, wide)}
    return sketch.chart(study, name, [said], NAMES.get(what[0], what[0]), series, **how)


def _ticks(at: Sequence[float], wide: bool) -> tuple[tuple[float, str], ...]:
    """Up to five rounded positions and names between the smallest and the largest x; empty if one is not positive."""
    if not at or min(at) <= 0:
        return ()
    places = (np.geomspace if wide else np.linspace)(min(at), max(at), 5)
    return tuple((x, spec.written(x)) for x in dict.fromkeys(float(f"{x:.2g}") for x in places))


def _said(study: Study, name: str, claim: str, unit: str = "") -> str:
    """The effect of a claim with its interval, as text."""
    (contrast,) = [each.contrast for each in account.CLAIMS if each.id == claim]
    return effect(name, sketch.of(study, contrast), unit)
