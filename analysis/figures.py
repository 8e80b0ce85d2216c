"""Draw the figures of studies as PNG and SVG, also while a study is in progress.

    python -m analysis.figures DIR [DIR...] --out FOLDER

Which figures a study has depends on its name; without a known one they are learning curves.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plasticity_jax.analysis import remedies, studies
from plasticity_jax.analysis.plots import appendix_b, curves, learning_stages, matplotlib_backend, phases, sketch
from plasticity_jax.analysis.plots import remedies as treatments
from plasticity_jax.analysis.plots.captions import MINUS, difference, effect, gap
from plasticity_jax.analysis.plots.sketch import ACCURACY, FRESH, LOSS, PERTURBED, ROLES, WARM
from plasticity_jax.analysis.plots.spec import Chart, across, level
from plasticity_jax.analysis.studies import Study
from plasticity_jax.config import paths
from plasticity_jax.errors import LabError
from plasticity_jax.runner import output
from plasticity_jax.storage import results


def main(argv: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity figures", description=__doc__.splitlines()[0])
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the --workdir of a study or sweep")
    parser.add_argument("--out", required=True, help="the directory for the figures")
    options = parser.parse_args(argv)
    try:
        out = paths.given(options.out)
        made: dict[str, tuple[Path, Chart]] = {}
        for study in studies.read_all(options.directories):
            for chart in charts(study):
                if chart.name in made:
                    twice = f"{made[chart.name][0]} and {study.directory} both make {chart.name}.png"
                    raise LabError(f"{twice}: draw them one by one, each with its own --out")
                made[chart.name] = study.directory, chart
        for path in matplotlib_backend.save([chart for _, chart in made.values()], out):
            print(path)
    except (LabError, OSError) as e:
        sys.exit(f"analysis.figures: {e}")


def charts(study: Study) -> list[Chart]:
    """The figures of a study, or its learning curves while the first figure has no data.

    Raises:
      LabError: it has not been evaluated yet.
    """
    scores = study.table.value[study.table.metric == results.METRIC].astype(float)
    if not np.isfinite(scores).any():
        raise LabError(f"{study.directory} holds no {results.METRIC} yet; wait for the first evaluation")
    drawn = CHARTS[study.name](study) if study.name in CHARTS else []
    if not drawn or not drawn[0].series:
        drawn = curves.learning(study, f"{study.name}_curves".lstrip("_"))
    return [chart for chart in drawn if chart.series]


def multistage(study: Study) -> list[Chart]:
    """Figure 1: the learning curves on test and training images."""
    return curves.learning(study, study.name) + curves.learning(study, f"{study.name}_train", "train_accuracy")


def pretrain_length(study: Study) -> list[Chart]:
    """Figure 2; and the training accuracy on the half."""
    scores = sketch.by_label(study)
    warm = sketch.numbered(r"pretrain-(\d+)", scores)
    series = [
        across("pretrain, then tune", sketch.at({0.0: FRESH, **warm}, scores), "warm"),
        sketch.level_of(FRESH, scores),
    ]
    effects = [gap(scores, FRESH, label) for label in sketch.last(warm)]
    fit = curves.stage(study, "pretrain", "train_accuracy")
    end = {line.seed: line.y[-1] for line in fit.lines if line.x[-1] == fit.x[-1]}
    said = [effect(f"train accuracy on the half, epoch {fit.x[-1]:g}", end, "%")] if fit.x else []
    on_half: dict[str, Any] = {
        "form": "curve",
        "view": curves.view([fit], 0.0),
        "y_label": "running train accuracy (%)",
    }
    return [
        sketch.chart(study, study.name, effects, "pretraining epochs (0: fresh)", series, scale="symlog"),
        sketch.chart(study, f"{study.name}_fit", said, "pretraining epochs", [fit], **on_half),
    ]


def blending(study: Study) -> list[Chart]:
    """Figure 3, with a control that draws its images with replacement, as blending does."""
    scores, drawn = sketch.by_label(study), "replacement"
    gammas = {float(point["gamma"]): label for label in scores if "gamma" in (point := curves.parts(label)[1])}
    series = [
        across("blend", sketch.at(gammas, scores), "warm"),
        sketch.level_of(FRESH, scores),
        level("fresh, with replacement", scores.get(drawn, {}), "shared"),
    ]
    effects = [gap(scores, control, label) for label in sketch.last(gammas) for control in (FRESH, drawn)]
    return [sketch.chart(study, "blending", effects, "\N{GREEK SMALL LETTER GAMMA}", series)]


def splits(study: Study) -> list[Chart]:
    """Figure 4: left against the number of data sets, right against the share r of uniformly drawn images."""
    scores = sketch.by_label(study)
    chains: dict[int, dict[float, str]] = {}
    for label in scores:
        if match := re.fullmatch(r"splits-(\d+)(?:-uniform-(\d+))?", label):
            chains.setdefault(int(match[1]), {})[float(match[2] or 100)] = label
    uniform = {float(n): shares[100.0] for n, shares in chains.items() if 100.0 in shares}
    several = {n: shares for n, shares in sorted(chains.items()) if len(shares) > 1}
    left = across("one after another", sketch.at({1.0: FRESH, **uniform}, scores), "warm")
    right = [across(f"{n} data sets", sketch.at(shares, scores)) for n, shares in several.items()]
    least = [shares[min(shares)] for shares in several.values()][-1:]
    effects = [gap(scores, FRESH, label) for label in sketch.last(uniform)]
    count, share = "number of data sets (1: fresh)", "share of the data that is spread uniformly, r (%)"
    return [
        sketch.chart(study, "splits", effects, count, [left, sketch.level_of(FRESH, scores)]),
        sketch.chart(
            study,
            "splits_ratio",
            [gap(scores, FRESH, one) for one in least],
            share,
            [*right, sketch.level_of(FRESH, scores)],
        ),
    ]


def architecture(study: Study) -> list[Chart]:
    """Figure 5: accuracy and gap against width, one series per depth."""
    scores = {(b, int(d), int(w)): values for (b, d, w), values in sketch.by_point(study, "depth", "width").items()}
    sizes = sorted({(depth, width) for _, depth, width in scores})
    widths = {depth: [w for d, w in sizes if d == depth] for depth, _ in sizes}
    gaps = {(d, w): difference(scores, (FRESH, d, w), (WARM, d, w)) for d, w in sizes}
    pairs = [
        across(f"{branch}, depth {d}", {w: scores.get((branch, d, w), {}) for w in widths[d]}, ROLES[branch])
        for d in widths
        for branch in (FRESH, WARM)
    ]
    series = [across(f"depth {d}", {w: gaps[d, w] for w in widths[d]}) for d in widths]
    effects = [effect(f"gap at depth {d}, width {w}", gaps[d, w]) for d, w in dict.fromkeys(sizes[:1] + sizes[-1:])]
    return [
        sketch.chart(study, "architecture", effects, "width", pairs, scale="log"),
        sketch.chart(study, "architecture_gap", effects, "width", series, y_label=LOSS, scale="log", zero=True),
    ]


def resets(study: Study) -> list[Chart]:
    """Figure 6: which modules are reset; and figure 11, the learning curves of three of the networks."""
    scores, head = sketch.by_label(study), 6
    ends = {label: re.findall(r"\d", label) for label in scores if label.startswith("reset-")}
    subsets = {(int(each[0]), int(each[-1])): label for label, each in ends.items() if each}
    groups = {
        "the last modules": sorted((s for s in subsets if s[1] == head), reverse=True),
        "the first modules": sorted(s for s in subsets if s[0] == 1 and s[1] < head),
        "one module between": sorted(s for s in subsets if s[0] == s[1] and 1 < s[0] < head),
    }
    series, ticks, x = [], [], 0
    for name, members in groups.items():
        at = {float(x + i): subset for i, subset in enumerate(members)}
        series.append(across(name, {place: scores[subsets[subset]] for place, subset in at.items()}))
        ticks += [(place, "-".join(map(str, dict.fromkeys(subset)))) for place, subset in at.items()]
        x += len(members) + bool(members)  # leaves an empty position between the groups
    series += [sketch.level_of(FRESH, scores), sketch.level_of(WARM, scores)]
    effects = [gap(scores, FRESH, label) for label in (WARM, "reset-3-6")]
    x_label = "modules that start anew (1: first convolution, 2-5: residual modules, 6: last layer)"
    names = {FRESH: "No pretrain", WARM: "Pretrain+Tune", "reset-3-6": "Reset last 4", "reset-2-6": "Reset last 5"}
    return [
        sketch.chart(study, "resets", effects, x_label, series, ticks=tuple(ticks)),
        *curves.learning(study, "resets_curves", names=names),
    ]


def tuning_rate(study: Study) -> list[Chart]:
    """Figure 7, with the fresh networks at the same learning rates."""
    scores = {(branch, float(x[:-1])): values for (branch, x), values in sketch.by_point(study, "rate").items()}
    rates = sorted({rate for _, rate in scores})
    series = [
        across(branch, {x: scores.get((branch, x), {}) for x in rates}, ROLES[branch]) for branch in (FRESH, WARM)
    ]
    same = {x: difference(scores, (FRESH, x), (WARM, x)) for x in rates}
    once = {x: difference(scores, (FRESH, 1.0), (WARM, x)) for x in rates}
    gaps = [across("against fresh at the same rate", same, "warm"), across("against fresh at 1x", once)]
    effects = [effect(f"fresh {MINUS} {WARM}, both at {x:g}x", same[x]) for x in (1.0, 10.0) if x in same]
    x_label = "learning rate of tuning, as a multiple of that of pretraining"
    axis: dict[str, Any] = {"scale": "log", "ticks": tuple((x, f"{x:g}x") for x in rates)}
    return [
        sketch.chart(study, "tuning_rate", effects, x_label, series, **axis),
        sketch.chart(study, "tuning_rate_gap", effects, x_label, gaps, **axis, y_label=LOSS, zero=True),
    ]


def controls(study: Study) -> list[Chart]:
    """Controls for artefacts: every branch, and its gap, with either stem."""
    scores = sketch.by_point(study, "stem")
    stems = dict.fromkeys(stem for _, stem in scores)
    at = dict(enumerate(dict.fromkeys(branch for branch, _ in scores)))
    series = [across(f"{stem} stem", {x: scores.get((b, stem), {}) for x, b in at.items()}) for stem in stems]
    lost = {s: {x: difference(scores, (FRESH, s), (b, s)) for x, b in at.items() if b != FRESH} for s in stems}
    gaps = [across(f"{stem} stem", lost[stem]) for stem in stems]
    effects = [gap(scores, (FRESH, stem), (WARM, stem), f"gap with {stem} stem") for stem in stems]
    ticks = tuple((float(x), branch) for x, branch in at.items())
    others = tuple(tick for tick in ticks if tick[1] != FRESH)
    return [
        sketch.chart(study, "controls", effects, "", series, ticks=ticks, joined=False),
        sketch.chart(study, "controls_gap", effects, "", gaps, y_label=LOSS, ticks=others, joined=False, zero=True),
    ]


def warm_start_table(study: Study) -> list[Chart]:
    """Table 1 of Ash & Adams 2020, with shrink and perturb as a further series."""
    scores = sketch.by_point(study, "model", "optimiser")
    at = dict(enumerate(dict.fromkeys((model, rule) for _, model, rule in scores)))
    series = [
        across(b, {x: scores.get((b, *cell), {}) for x, cell in at.items()}, ROLES[b]) for b in (FRESH, WARM, PERTURBED)
    ]
    lost = {b: {x: difference(scores, (FRESH, *cell), (b, *cell)) for x, cell in at.items()} for b in (WARM, PERTURBED)}
    gaps = [across(branch, values, ROLES[branch]) for branch, values in lost.items()]
    effects = [effect(f"gap of {', '.join(cell)}", lost[WARM][x]) for x, cell in list(at.items())[:2]]
    axis: dict[str, Any] = {"ticks": tuple((float(x), "\n".join(cell)) for x, cell in at.items())}
    return [
        sketch.chart(study, "warm_start_table", effects, "", series, **axis, form="bars"),
        sketch.chart(study, "warm_start_table_gap", effects, "", gaps, **axis, y_label=LOSS, joined=False, zero=True),
    ]


def warm_start_online(study: Study) -> list[Chart]:
    """Figure 2 of Ash & Adams 2020: test accuracy at the end of each chunk of data, and the number of updates."""
    data = {stage["name"]: stage["data"] for stage in studies.records(study)}
    counted = study.config["train_images"]
    images = {name: (counted or 100.0) * recipe["part"] / recipe["splits"] for name, recipe in data.items()}
    branches = {FRESH: "fresh-{}", "warm": "warm", PERTURBED: PERTURBED}
    made = []
    for name, metric, unit in (("", results.METRIC, " points"), ("_updates", "steps", " updates")):
        curves_of: dict[str, dict[float, Mapping[int, float]]] = {branch: {} for branch in branches}
        for stage, recipe in data.items():
            for branch, label in branches.items():
                values = studies.values(study, label.format(recipe["part"]), metric, stage=stage)
                curves_of[branch] |= {images[stage]: values} if values else {}
        last = max(curves_of[FRESH], default=0.0)
        lost = difference({branch: at.get(last, {}) for branch, at in curves_of.items()}, FRESH, "warm")
        effects = [effect(f"fresh {MINUS} warm at {last:,g}{' images' if counted else '%'}", lost, unit)]
        series = [across(branch, curves_of[branch], ROLES[branch]) for branch in branches]
        x_label = f"training images so far{'' if counted else ' (% of the data set)'}"
        y_label = "updates in the chunk" if name else ACCURACY
        made.append(sketch.chart(study, f"warm_start_online{name}", effects, x_label, series, y_label, form="curve"))
    return made


OTHERS = ("adamw", "rmsprop", "sgd", "momentum", "sam", "muon")  # optimisers that make a study of its own
CHARTS: Mapping[str, Callable[[Study], list[Chart]]] = {
    "multistage": multistage,
    "pretrain_length": pretrain_length,
    **{f"multistage_{name}": multistage for name in OTHERS},
    **{f"pretrain_length_{name}": pretrain_length for name in OTHERS},
    "blending": blending,
    "splits": splits,
    "architecture": architecture,
    "resets": resets,
    "tuning_rate": tuning_rate,
    "controls": controls,
    "warm_start_table": warm_start_table,
    "warm_start_online": warm_start_online,
    **learning_stages.CHARTS,
    **phases.CHARTS,
    **appendix_b.CHARTS,
    **dict.fromkeys((f"{remedies.PREFIX}{name}" for name in remedies.PROTOCOLS), treatments.charts),
}


if __name__ == "__main__":
    main()
