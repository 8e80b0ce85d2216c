"""Charts of the studies of learning stages.  You et al. 2019 show training curves; all other designs are ours."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from plasticity_jax.analysis import studies
from plasticity_jax.analysis.claims import you2019, you2019_implications
from plasticity_jax.analysis.effects import contrasts, transitions
from plasticity_jax.analysis.effects.contrasts import Contrast
from plasticity_jax.analysis.effects.transitions import At
from plasticity_jax.analysis.plots import captions, curves, sketch, spec
from plasticity_jax.analysis.plots.captions import MINUS, effect
from plasticity_jax.analysis.plots.spec import Chart, Series, across
from plasticity_jax.analysis.studies import END, Study

NATS = "training loss (nats)"


def stepdecay(study: Study) -> list[Chart]:
    """Training curves, and the sharpness of transitions at decays and at placebo epochs."""
    bounds = studies.learning_stages(study, "stepdecay", "train")[1:-1]
    names = {"": "test_accuracy", "_loss": "train_eval_loss", "_gradient": "gradient_norm"}
    charts = [
        spec.marked(chart, bounds)
        for name, metric in names.items()
        for chart in curves.learning(study, f"stepdecay{name}", metric)
    ]
    places = {
        (decay, shift): f"decay {decay}" if not shift else "placebo before" if shift < 0 else "placebo after"
        for decay in (1, 2)
        for shift in (0.0, *you2019.PLACEBOS)
    }
    order = sorted(places)
    series = [
        across(
            metric.replace("_", " "),
            {
                x: studies.values(study, "stepdecay", metric, At(transitions.SHARPNESS, *place))
                for x, place in enumerate(order)
            },
        )
        for metric, _, _ in you2019.CURVES.values()
    ]
    said = [effect("jump of test accuracy at the first decay", _values(study, "stepdecay", At(transitions.JUMP, 1)))]
    ticks = tuple((float(x), places[place]) for x, place in enumerate(order))
    how: dict[str, Any] = {"y_label": "sharpness (standard deviations)", "ticks": ticks, "joined": False, "zero": True}
    x_label = "decays of the learning rate, and placebo epochs before and after"
    return [*charts, sketch.chart(study, "stepdecay_sharpness", said, x_label, series, **how)]


LADDER = ("augmented", "plain", "large", "full", "full-group")  # the arms of `configs/noise.py`, noisiest first


def noise(study: Study) -> list[Chart]:
    """The transition at each level of noise, and the loss curves around it with and without noise."""
    points = [curves.parts(label)[1] for label in studies.labels(study)]
    arms = sorted({point["arm"] for point in points}, key=LADDER.index)
    rates = sorted({point["rate"] for point in points}, key=float)
    changes = {"decay": "after", "grown": "grown"}
    series = [
        across(f"{name}, rate {rate}", {x: _transition(study, arm, rate, name, stage) for x, arm in enumerate(arms)})
        for name, stage in changes.items()
        for rate in rates
    ]
    said = [
        _said(study, f"transition by a decay, {arm}", you2019.transition(arm), " nats") for arm in ("plain", "full")
    ]
    how: dict[str, Any] = {"joined": False, "zero": True, "ticks": tuple((float(x), arm) for x, arm in enumerate(arms))}
    y_label = f"how much lower the {NATS} is soon after"
    charts = [sketch.chart(study, "noise", said, "from most noise to none", series, y_label=y_label, **how)]
    for arm in (arm for arm in ("plain", "full") if arm in arms):
        point = f"[arm={arm},rate={rates[-1]}]"
        before = sketch.by_step(study, f"before{point}", "train_eval_loss", "before")
        start = max((x for points in before.values() for x in points), default=0.0)
        branches = {"keep": "after", **changes}
        shifted = {seed: {x - start: y for x, y in points.items()} for seed, points in before.items()}
        lines = [spec.series("before", shifted, "shared")]
        lines += [
            spec.series(name, sketch.by_step(study, f"{name}{point}", "train_eval_loss", stage))
            for name, stage in branches.items()
        ]
        how = {"y_label": NATS, "form": "curve", "origin": True, "view": _late(lines)}
        charts.append(sketch.chart(study, f"noise_{arm}", [f"{arm}, rate {rates[-1]}"], "updates", lines, **how))
    return charts


def patterns_patches(study: Study) -> list[Chart]:
    """Accuracy on patches alone for every amplitude, and on clean images for the largest."""
    amplitudes = sorted({curves.parts(label)[1]["own"] for label in studies.labels(study)}, key=float)
    views = {f"patterns_patches_{amplitude}": (amplitude, "patch_only_accuracy") for amplitude in reversed(amplitudes)}
    views |= {"patterns_patches_clean": (amplitudes[-1], "test_accuracy")} if amplitudes else {}
    charts = []
    for name, (amplitude, metric) in views.items():
        series = _by_epoch(
            study, {arm: f"{arm}[own={amplitude}]" for arm in ("large", "middle", "small", "small-noise")}, metric
        )
        said = f"accuracy {'on a patch alone' if 'patch' in metric else 'on clean images'}, amplitude {amplitude}"
        chart = sketch.chart(study, name, [said], "epochs", series, f"{metric.replace('_', ' ')} (%)", form="curve")
        charts.append(spec.marked(chart, studies.learning_stages(study, f"large[own={amplitude}]", "train")[1:-1]))
    return charts


def patterns_graded(study: Study) -> list[Chart]:
    """Final accuracy on each pattern by rate and batch size, and for step decay at the end of each learning stage."""
    bits = (0, 2, 4, 6)
    split = {label: curves.parts(label) for label in studies.labels(study)}
    held = {label: (branch, point["batch_size"]) for label, (branch, point) in split.items() if branch != "stepdecay"}
    ends = [
        across(
            f"{branch}, batch {batch}",
            {b: studies.values(study, label, f"bits{b}_accuracy", END) for b in bits},
        )
        for label, (branch, batch) in held.items()
    ]
    label = "stepdecay[batch_size=32]"
    moments: dict[str, studies.When] = {
        "end of stage 1": At(transitions.END, 1),
        "end of stage 2": At(transitions.END, 2),
        "end of stage 3": END,
    }
    stages = [
        across(name, {b: studies.values(study, label, f"bits{b}_accuracy", when) for b in bits})
        for name, when in moments.items()
    ]
    y_label, x_label = "accuracy on the pattern (%)", "complexity of the pattern (bits)"
    at = At(transitions.JUMP, 1)
    said = [effect("jump on 4 bits at the first decay", studies.values(study, label, "bits4_accuracy", at))]
    held_said = ["rates held constant: the same noise at rate-2, batch 32 and rate-1, batch 320"]
    return [
        sketch.chart(study, "patterns_graded", held_said, x_label, ends, y_label),
        sketch.chart(study, "patterns_graded_stages", said, x_label, stages, y_label),
    ]


def autodecay(study: Study) -> list[Chart]:
    """Final accuracy against the epochs that a schedule took, and the epochs at which its learning stages ended."""
    labels = {curves.parts(label)[1]["schedule"]: label for label in studies.labels(study)}
    epochs = {name: _epochs(study, label) for name, label in labels.items()}
    lines = {}
    for kind in ("compressed", "cosine"):
        names = [name for name in labels if name.startswith(f"{kind}-")]
        names += ["stepdecay"] * (kind == "compressed" and "stepdecay" in labels)
        lines[kind] = {_mean(epochs[name]): studies.values(study, labels[name], at=END) for name in names}
    series = [
        across("step decay, compressed", lines["compressed"], "fresh"),
        across("cosine", lines["cosine"], "shared"),
    ]
    singles = ("autodecay", "plateau", "slope", "sasa", "abel")
    series += [
        across(
            name,
            {_mean(epochs[name]): studies.values(study, labels[name], at=END)},
            "warm" if name == singles[0] else "other",
        )
        for name in singles
        if name in labels and epochs[name]
    ]
    same = contrasts.minus(you2019_implications.schedule("autodecay"), you2019_implications.schedule("stepdecay"))
    said = [_said(study, f"autodecay {MINUS} stepdecay", same)]
    how: dict[str, Any] = {"y_label": "test accuracy at the end (%)"}
    ended = [name for name in labels if not name.startswith("cosine")]
    stages = [
        across(f"stage {k}", {x: _ends(study, labels[name], k) for x, name in enumerate(ended)}) for k in (1, 2, 3)
    ]
    ticks = tuple((float(x), name) for x, name in enumerate(ended))
    when: dict[str, Any] = {"y_label": "epoch at which a learning stage ended", "ticks": ticks, "joined": False}
    return [
        sketch.chart(study, "autodecay", said, "epochs of training", series, **how),
        sketch.chart(study, "autodecay_ends", said, "", stages, **when, zero=True),
    ]


def transfer(study: Study) -> list[Chart]:
    """Accuracy on target and source by the learning stage of the source network, and the gap of Figure 1."""
    networks = ("untrained", "middle-1", "stage-1", "stage-2", "stage-3", "constant-2", "constant-3")
    ticks = tuple((float(x), name) for x, name in enumerate(networks))
    series = [
        across(
            f"target, {called.removeprefix('a ')}",
            {x: sketch.of(study, you2019_implications.target(way, name)) for x, name in enumerate(networks)},
        )
        for way, (_, called) in you2019_implications.WAYS.items()
    ]
    at: dict[str, Contrast] = {f"stage-{k}": you2019_implications.source(k) for k in (1, 2, 3)}
    at |= {f"constant-{k}": you2019_implications.source(k, "constant") for k in (2, 3)}
    sources = {x: sketch.of(study, at[name]) for x, name in enumerate(networks) if name in at}
    series.append(across("source", sources, "shared"))
    strong = contrasts.minus(
        you2019_implications.target("probe", "stage-3"), you2019_implications.target("probe", "stage-1")
    )
    said = [_said(study, f"target by a probe, stage 3 {MINUS} stage 1", strong)]
    tuned = [name for name in networks if studies.values(study, f"tune-{name}")]
    gaps = {
        x: captions.difference(
            {n: studies.values(study, n) for n in ("fresh", f"tune-{name}")}, "fresh", f"tune-{name}"
        )
        for x, name in enumerate(tuned)
    }
    gained = [effect(f"gap after {name}", gaps[x]) for x, name in enumerate(tuned) if name in ("stage-1", "stage-3")]
    names = tuple((float(x), name) for x, name in enumerate(tuned))
    how: dict[str, Any] = {"ticks": names, "joined": False, "zero": True}
    x_label = "learning stage of the source after which the network goes on"
    return [
        sketch.chart(study, "transfer", said, x_label, series, ticks=ticks, joined=False),
        sketch.chart(study, "transfer_gap", gained, x_label, [across("tuned", gaps, "warm")], sketch.LOSS, **how),
    ]


CHARTS: Mapping[str, Callable[[Study], list[Chart]]] = {
    "stepdecay": stepdecay,
    "noise": noise,
    "patterns_patches": patterns_patches,
    "patterns_graded": patterns_graded,
    "autodecay": autodecay,
    "transfer": transfer,
}


def _values(study: Study, label: str, at: studies.When) -> dict[int, float]:
    return studies.values(study, label, at=at)


def _said(study: Study, name: str, contrast: Contrast, unit: str = " points") -> str:
    return effect(name, sketch.of(study, contrast), unit)


def _transition(study: Study, arm: str, rate: str, name: str, stage: str) -> dict[int, float]:
    """The drop of the loss soon after a change, against no change, by seed."""
    point = f"[arm={arm},rate={rate}]"
    when = {"keep": "after", name: stage}
    losses = {
        branch: studies.values(study, f"{branch}{point}", "train_eval_loss", studies.START, where)
        for branch, where in when.items()
    }
    return captions.difference(losses, "keep", name)


def _by_epoch(study: Study, labels: Mapping[str, str], metric: str) -> list[Series]:
    """A curve over epochs for each label that the study has, under the given names."""
    rows = study.table[study.table.metric == metric]
    drawn = []
    for name, label in labels.items():
        of_label = rows[rows.label == label]
        points: dict[int, dict[float, float]] = {}
        for seed, epoch, value in zip(of_label.seed, of_label.epoch, of_label.value.astype(float), strict=True):
            points.setdefault(int(seed), {})[float(epoch)] = value
        drawn.append(spec.series(name, points))
    return drawn


def _late(lines: Iterable[Series]) -> tuple[float, float] | None:
    """The range of the y axis for losses that begin high: all values after the first fifth of a curve."""
    found = [y for one in lines for line in one.lines for y in line.y[len(line.y) // 5 :]]
    return (min(found) - 0.05, max(found) + 0.05) if found else None


def _epochs(study: Study, label: str) -> dict[int, float]:
    """The number of epochs of each run of a label, by seed."""
    rows = study.table[study.table.label == label]
    return {int(seed): float(own.epoch.max()) for seed, own in rows.groupby("seed")}


def _mean(by_seed: Mapping[int, float]) -> float:
    return round(float(np.mean(list(by_seed.values()))), 2) if by_seed else 0.0


def _ends(study: Study, label: str, stage: int) -> dict[int, float]:
    """The epoch at which a learning stage ended, by its detector or by its plan, by seed."""
    ends = studies.values(study, label, f"learning_stage_end/{stage}", END)
    if ends:
        return ends
    bounds = studies.learning_stages(study, label, "train")
    return dict.fromkeys(_epochs(study, label), bounds[stage]) if stage < len(bounds) else {}
