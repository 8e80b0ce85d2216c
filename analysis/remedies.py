"""Compare remedies in each protocol: effects paired by seed, cost, and the chosen settings.

    python -m analysis.remedies runs/half-digits [runs/pixels-digits ..] [--out remedies.md]

The directories are studies of `configs/remedies.py`.  With --out the table is also written to a Markdown file, and a
figure of each protocol next to it.

*accuracy*   in percent over the window of the study: on test images, or in streams of tasks on training images at the
             end of each task.  With the setting that is best on validation images, the same for all seeds; in `labels`,
             where nothing generalises, each seed has the setting that is best at the other seeds.
*gap*        fresh - treated in points, with Student's 95 % t interval, paired by seed.
*recovered*  the share (treated - warm) / (fresh - warm), with Fieller's 95 % set, paired by seed (`effects.ratios`).
             It is not an interval if fresh and warm may be equal: then few shares or none can be rejected.
*p*          of the paired t test of treated - warm = 0, after Holm's correction over all rows of the table.
*time*       seconds per training step of one run, relative to the warm start; runs that train side by side share it.
"""

import argparse
import dataclasses
import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from plasticity_jax.analysis import scale, studies
from plasticity_jax.analysis.effects import contrasts, ratios, stats
from plasticity_jax.analysis.effects.derived import Chosen, chosen
from plasticity_jax.analysis.effects.ratios import Ratio
from plasticity_jax.analysis.studies import Study
from plasticity_jax.config import paths, plan
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import LabError
from plasticity_jax.runner import output
from plasticity_jax.storage import results

PREFIX = "remedies_"  # of the names of the studies
PROTOCOLS = ("half", "tenth", "tenth_noisy", "chunks", "classes", "labels", "pixels")
FRESH, WARM = "fresh", "warm"
VALIDATION, ONLINE = "validation_accuracy", "train_accuracy"
# (metric, metric that chooses the setting) of protocols for which they are not test and validation accuracy.
MEASURED = {f"{PREFIX}labels": (ONLINE, ""), f"{PREFIX}pixels": (ONLINE, VALIDATION)}
HEAD = ("protocol", "remedy", "accuracy", "gap to fresh", "recovered", "p", "time", "setting", "n")


@dataclasses.dataclass(frozen=True)
class Row:
    """One remedy in one protocol.

    values: its accuracy by seed.  gap: fresh - treated by seed.  recovered: of the mean gap of the warm start.
    p, holm: the p-value of treated - warm, before and after the correction; NaN for `fresh` and `warm`.
    time: of a step, relative to that of the warm start; NaN if unknown.
    setting: the numbers that were chosen; empty if there was no choice.
    """

    protocol: str
    remedy: str
    values: Mapping[int, float]
    gap: Mapping[int, float]
    recovered: Ratio
    p: float
    holm: float
    time: float
    setting: str


def main(argv: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity remedies", description=__doc__.splitlines()[0])
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the --workdir of a study of configs/remedies.py")
    parser.add_argument("--out", help="also write the table to this Markdown file, and figures next to it")
    options = parser.parse_args(argv)
    try:
        read = list(studies.read_all(options.directories))
        for study in read:
            if not is_one(study):
                raise LabError(f"{study.directory} is no study of configs/remedies.py; give one")
        text = markdown(read)
        if options.out:
            from plasticity_jax.analysis import figures  # needs matplotlib
            from plasticity_jax.analysis.plots import matplotlib_backend

            out = paths.given(options.out)
            out.parent.mkdir(parents=True, exist_ok=True)
            charts = [chart for study in read for chart in figures.charts(study)]
            written = matplotlib_backend.save(charts, out.parent)
            pictures = [f"![{path.stem}]({path.name})" for path in written if path.suffix == ".png"]
            out.write_text("\n\n".join([text, *pictures]) + "\n", encoding="utf-8")
    except (LabError, OSError) as e:
        sys.exit(f"analysis.remedies: {e}")
    print(text)


def is_one(study: Study) -> bool:
    """Whether a study is of `configs/remedies.py`."""
    return study.name.startswith(PREFIX)


def measured(name: str) -> tuple[str, str]:
    """(metric, metric that chooses the setting) of a study by name; the second is empty if the other seeds choose."""
    return MEASURED.get(name, (results.METRIC, VALIDATION))


def treated(study: Study) -> dict[str, Chosen]:
    """Every final branch of a study, with the setting that is chosen for it."""
    metric, by = measured(study.name)
    available = contrasts.known(study)
    names = dict.fromkeys(label.partition("[")[0] for stage, label in available if not stage)
    sums = {name: chosen(name, by, metric)(available) for name in names}
    return {name: total.terms[0] for name, total in sums.items() if total}


def rows(read: Iterable[Study]) -> list[Row]:
    """The rows of all protocols; the correction is over all of them."""
    made = [row for study in read for row in _rows(study)]
    tests = [((row.protocol, row.remedy), row.p) for row in made if not math.isnan(row.p)]
    corrected = dict(zip((what for what, _ in tests), stats.holm(tests, len(tests)), strict=True))
    return [dataclasses.replace(row, holm=corrected.get((row.protocol, row.remedy), math.nan)) for row in made]


def _rows(study: Study) -> Iterator[Row]:
    terms = treated(study)
    values = {name: term.by_seed(study) for name, term in terms.items()}
    fresh, warm = values.get(FRESH, {}), values.get(WARM, {})
    seconds = _seconds_per_step(study)
    for name, scores in values.items():
        lifted = _minus(scores, warm)
        tested = name not in (FRESH, WARM) and lifted
        setting, by_label = _setting(study, terms[name]), set(terms[name].choices(study).values())
        times = [seconds[label] for label in by_label if label in seconds]
        yield Row(
            protocol=study.name.removeprefix(PREFIX),
            remedy=name,
            values=scores,
            gap=_minus(fresh, scores),
            recovered=ratios.fieller(lifted, _minus(fresh, warm)),
            p=stats.p_value(stats.ABOVE, 0.0, list(lifted.values())) if tested else math.nan,
            holm=math.nan,
            time=times[0] / seconds[WARM] if times and seconds.get(WARM) else math.nan,
            setting=setting,
        )


def _minus(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {seed: round(one[seed] - other[seed], contrasts.DIGITS) for seed in sorted(one.keys() & other.keys())}


def _seconds_per_step(study: Study) -> dict[str, float]:
    """Seconds of a training step in the last stage, by label; empty if the result has none."""
    taken = (study.result or {}).get("train_seconds", {})
    parsed = restore_study(study.config)
    seconds: dict[str, float] = {}
    for pack in parsed.packs:
        for group in plan.unfold(pack, parsed.seeds):
            labels = {studies.label_of(run.id.rpartition("/")[0]) for run in group.runs if run.final}
            steps = sum(sum(studies.values(study, label, "steps", stage=group.stage.name).values()) for label in labels)
            if steps and f"{pack.name}/{group.name}" in taken:
                seconds |= dict.fromkeys(labels, taken[f"{pack.name}/{group.name}"] / steps)
    return seconds


def _setting(study: Study, term: Chosen) -> str:
    """The numbers that distinguish the chosen setting of a branch from its other settings; that of most seeds."""
    picked = list(term.choices(study).values())
    if len(term.labels) < 2 or not picked:
        return ""
    label = max(dict.fromkeys(picked), key=picked.count)
    numbers = {each: _numbers(study, each) for each in term.labels}
    telling = [key for key, value in numbers[label].items() if any(other[key] != value for other in numbers.values())]
    text = ", ".join(f"{key.rpartition('.')[2]}={numbers[label][key]:g}" for key in telling)
    share = f" ({picked.count(label)} of {len(picked)} seeds)" if picked.count(label) < len(picked) else ""
    return text + share


def _numbers(study: Study, label: str) -> dict[str, float]:
    """All numbers of the last stage of a label by their path in config.json."""
    branch, _, point = label.removesuffix("]").partition("[")
    last = studies.stages(study, label)[-1]
    for pack in study.config["packs"]:
        for hparams, stages in pack["plans"]:
            if set(filter(None, point.split(","))) <= {f"{key}={value}" for key, value in hparams}:
                for stage in stages:
                    if (stage["name"], stage["branch"]) == (last, branch):
                        return dict(_leaves(stage, ""))
    return {}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):  # a number of a remedy
        yield from _leaves(value[1], f"{path}.{value[0]}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{i}]")
    elif isinstance(value, (int, float)):
        yield path, float(value)


def cells(row: Row) -> list[str]:
    """A row as text, one cell for each column of `HEAD`."""
    mean = f"{statistics.fmean(row.values.values()):.2f}" if row.values else "-"
    low, high = results.interval(list(row.gap.values()))
    between = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    control = row.remedy == FRESH
    return [
        row.protocol,
        row.remedy,
        mean,
        "" if control else f"{statistics.fmean(row.gap.values()):.2f}{between}" if row.gap else "-",
        "" if control or row.remedy == WARM else ratios.shown(row.recovered),
        "" if math.isnan(row.holm) else f"{row.holm:.3f}" if row.holm >= 5e-4 else "<0.001",
        "" if math.isnan(row.time) else f"{row.time:.2f}",
        row.setting,
        str(len(row.values)),
    ]


def markdown(read: Sequence[Study]) -> str:
    """The table of all protocols in Markdown with padded columns, and the data and scale of each."""
    lines = [list(HEAD), *map(cells, rows(read))]
    width = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    text = ["| " + " | ".join(word.ljust(w) for word, w in zip(line, width, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in width) + "|")
    about = [
        f"{study.name.removeprefix(PREFIX)}: {scale.describe(study)}{'' if study.result else ' (in progress)'}"
        for study in read
    ]
    return "\n".join([*text, "", *about])


if __name__ == "__main__":
    main()
