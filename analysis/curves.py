"""Learning curves of a study with several stages, in the form of figures 1 and 11 of Berariu et al. 2021.

    python -m analysis.curves DIR --out FILE.png

Epochs of tuning count from 0 and those of pretraining are negative: a stage that others continue from ends where they
begin.  A thin line is a seed, a thick line their mean; the box is the window of the metric.  One panel per pack.
"""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import analysis
from plasticity_jax import results
from plasticity_jax.errors import LabError

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # told apart by all eyes
SHARED = "#777777"  # a stage that several of them continue from
MINUS = "\N{MINUS SIGN}"
COLUMNS = 3  # panels side by side
FIRST = 0.1  # share of a stage whose curve may run out of the picture: a network that knows nothing yet

Key = tuple[str, str]  # a stage and a branch of it
Records = Mapping[Key, Sequence[Mapping[str, Any]]]  # what the config says of each, once per point of the grid
Line = tuple[np.ndarray, np.ndarray]  # epochs and accuracies


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.curves", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="the --workdir of a study, running or finished")
    parser.add_argument("--out", type=Path, required=True, help="the picture: .png, .svg or .pdf")
    options = parser.parse_args(argv)
    try:
        figure = draw(options.directory)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.out, dpi=150)
    except (LabError, OSError, ValueError) as e:  # ValueError: an ending of the file that matplotlib does not know
        sys.exit(f"analysis.curves: {e}")
    print(f"learning curves: {options.out}")


def draw(directory: analysis.Directory) -> Figure:
    """The figure of one working directory.

    Raises:
      LabError: no config or no evaluations there.
    """
    config, table = analysis.load_config(directory), analysis.load(directory)
    table = table[(table.metric == results.METRIC) & np.isfinite(table.value.astype(float))]
    packs = [pack for pack in config["packs"] if (table.pack == pack["name"]).any()]
    if not packs:
        raise LabError(f"{directory} holds no {results.METRIC} yet; wait for the first evaluation")
    runs = analysis.load_result(directory)["runs"] if (Path(directory) / "result.json").exists() else []
    across = min(len(packs), COLUMNS)
    down = -(-len(packs) // across)
    figure = Figure(figsize=(8.0 if across == 1 else 5.5 * across, 4.8 * down), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, pack in zip(panels, packs, strict=False):
        rows = table[table.pack == pack["name"]]
        mine = [run for run in runs if run["pack"] == pack["name"]]
        failed = {run["run"].removeprefix(f"{pack['name']}/") for run in mine if run["status"] != "finished"}
        _panel(axes, rows, records_of(pack), config["window"], failed)
        letters = 100 if across == 1 else 68
        about = textwrap.wrap(_about(config, pack), letters)
        headline = textwrap.wrap(_gap(results.summarise(mine, config["control"])["gap"]), letters - 15)
        axes.set_title("\n".join(headline), loc="left", fontsize=10, fontweight="bold", pad=8 + 12 * len(about))
        axes.text(0, 1.02, "\n".join(about), transform=axes.transAxes, fontsize=9, color="#444444")
    for axes in panels[len(packs) :]:
        axes.set_axis_off()
    return figure


def records_of(pack: Mapping[str, Any]) -> dict[Key, list[Mapping[str, Any]]]:
    """The stage records of a pack of `config.json` by stage and branch."""
    found: dict[Key, list[Mapping[str, Any]]] = {}
    for _, plan in pack["plans"]:
        for stage in plan:
            found.setdefault((stage["name"], stage["branch"]), []).append(stage)
    return found


def heirs(stages: Records, key: Key) -> list[Key]:
    """What continues from a stage; `after` is `init` or `STAGE[/BRANCH][@EPOCH]`."""
    found = []
    for other, records in stages.items():
        name, _, branch = records[0]["after"].partition("@")[0].partition("/")
        if name == key[0] and branch in ("", key[1]):
            found.append(other)
    return found


def ends(stages: Records, key: Key) -> set[Key]:
    """The last stages that a stage leads to: itself if nothing continues from it."""
    return set().union(*(ends(stages, heir) for heir in heirs(stages, key))) or {key}


def start(stages: Records, lengths: Mapping[Key, float], key: Key) -> float:
    """Where on the axis a stage begins: 0 for a last stage, else so that it ends where the first heir begins."""
    begins = [start(stages, lengths, heir) for heir in heirs(stages, key)]
    return min(begins) - lengths[key] if begins else 0.0


def planned(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Epochs of a stage; None if only the data tell (a length in steps, an early end, a grid over lengths)."""
    lengths = {None if stage["steps"] or stage["until_accuracy"] else stage["epochs"] for stage in records}
    return lengths.pop() if len(lengths) == 1 else None


def average(lines: Sequence[Line]) -> Line:
    """The mean of curves on all their epochs, interpolated, over the stretch that all of them cover."""
    epochs = np.unique(np.concatenate([x for x, _ in lines]))
    epochs = epochs[(epochs >= max(x[0] for x, _ in lines)) & (epochs <= min(x[-1] for x, _ in lines))]
    return epochs, np.mean([np.interp(epochs, x, y) for x, y in lines], axis=0)


def _panel(axes: Axes, table: pd.DataFrame, stages: Records, window: float, failed: set[str]) -> None:
    keys = [key for key in stages if ((table.stage == key[0]) & (table.branch == key[1])).any()]
    rows = {key: table[(table.stage == key[0]) & (table.branch == key[1])] for key in keys}
    lengths = {key: planned(stages[key]) or (rows[key].epoch.max() if key in rows else 0.0) for key in stages}
    colours = _colours(rows, stages)
    seen: list[Line] = []
    for key in sorted(keys, key=lambda key: not heirs(stages, key)):  # the last stages on top
        for series, runs in rows[key].groupby(_series(rows[key]), sort=False):
            lines = {}
            for run, points in runs.groupby("run", sort=False):
                points = points.sort_values("epoch")
                early = 0.0 if planned(stages[key]) or not heirs(stages, key) else lengths[key] - points.epoch.max()
                lines[run] = (
                    (points.epoch + start(stages, lengths, key) + early).to_numpy(),
                    points.value.to_numpy(float),
                )
            for x, y in lines.values():
                axes.plot(x, y, color=colours[key, series], linewidth=0.7, alpha=0.35)
            sound = [line for run, line in lines.items() if run not in failed]
            if sound:
                named = not heirs(stages, key) or colours[key, series] == SHARED
                x, y = average(sound)
                axes.plot(x, y, color=colours[key, series], linewidth=1.8, label=series if named else None)
            seen += lines.values()
    end = max((lengths[key] for key in stages if not heirs(stages, key)), default=0.0)
    if end:
        box = f"metric: last {window:.0%}"
        axes.axvspan(end * (1 - window), end, color="#2CA02C", alpha=0.12, linewidth=0, label=box, zorder=0)
    if any(heirs(stages, key) for key in keys):
        axes.axvline(0, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_xlabel("training epochs (pretraining on negative values)")
    else:
        axes.set_xlabel("training epochs")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(*_limits(seen))
    axes.margins(x=0.02)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=9, framealpha=0.9)


def _series(rows: pd.DataFrame) -> pd.Series:
    """`branch[,key=value..]`: the run without its seed."""
    return rows.run.str.rpartition("/")[0]


def _colours(rows: Mapping[Key, pd.DataFrame], stages: Records) -> dict[tuple[Key, str], Any]:
    """One colour per series of the last stages; an earlier stage has that of its only successor, or grey."""
    series = {key: list(dict.fromkeys(_series(rows[key]))) for key in rows}
    last = list(dict.fromkeys((key, name) for key in rows if not heirs(stages, key) for name in series[key]))
    names = list(dict.fromkeys(name for _, name in last))
    many = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(names)))
    colour = dict(zip(names, COLOURS if len(names) <= len(COLOURS) else map(tuple, many), strict=False))
    found = {}
    for key in rows:
        for name in series[key]:
            point = set(name.split(",")[1:])
            then = {other for end, other in last if end in ends(stages, key) and point <= set(other.split(",")[1:])}
            lone = name in colour if not heirs(stages, key) else len(then) == 1
            found[key, name] = colour[name if name in then else then.pop()] if lone else SHARED
    return found


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    """Accuracies to show: all but those at the beginnings of the curves."""
    late = np.concatenate([y[x >= x[0] + FIRST * (x[-1] - x[0])] for x, y in lines])
    margin = max(0.08 * np.ptp(late), 0.5)
    return late.min() - margin, late.max() + margin


def _gap(gap: Mapping[str, Any] | None) -> str:
    if gap is None or gap["mean"] is None:
        return ""
    low, high = gap["ci95"]
    between = "" if low is None else f"95% interval {_number(low)} to {_number(high)}, "
    return f"{gap['control']} {MINUS} {gap['treatment']}: {_number(gap['mean'])} points ({between}n = {gap['n']})"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def _about(config: Mapping[str, Any], pack: Mapping[str, Any]) -> str:
    """Data set, scale and seeds in one line."""
    model = pack["model"]
    sizes = {"resnet": ("depth", "width", "stem"), "mlp": ("depth", "width")}.get(model["name"], ())
    network = " ".join([model["name"], *(f"{size} {model[size]}" for size in sizes)])
    images = [f"{config['train_images']:,} training images"] if config["train_images"] else []
    noise = max(stage["data"]["label_noise"] for _, plan in pack["plans"] for stage in plan)
    images += [f"{100 * noise:g}% of the labels wrong"] if noise else []
    seeds = len(config["seeds"])
    return ", ".join([config["dataset"], *images, network, f"{seeds} seed{'s' if seeds > 1 else ''}"])


if __name__ == "__main__":
    main()
