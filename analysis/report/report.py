"""Write studies to one self-contained HTML page: what ran, verdicts, figures, every run, configs and cost.

    python -m analysis.report DIR [DIR...] --out report.html

Charts show run and value on hover, and the page makes no requests.  Studies may be in progress.  DIR may also be a
directory written by `analysis.collect`.
"""

import argparse
import datetime
import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from plasticity_jax.analysis import facts as known
from plasticity_jax.analysis import figures, remedies, scale, studies
from plasticity_jax.analysis.effects.judgement import judge
from plasticity_jax.analysis.facts import Facts, duration
from plasticity_jax.analysis.plots import curves
from plasticity_jax.analysis.plots.spec import Chart
from plasticity_jax.analysis.report import panels, verdicts, why
from plasticity_jax.analysis.report.page import Html, facts, join, page, table, tag, tree
from plasticity_jax.analysis.studies import Study
from plasticity_jax.config import paths
from plasticity_jax.errors import LabError
from plasticity_jax.runner import output
from plasticity_jax.storage import results

PARTS = {"figures": "Figures", "runs": "Every run", "numbers": "Numbers", "config": "Configuration"}
RUNS = ("test_accuracy", "train_accuracy")  # metrics that are drawn for every run
KINDS = ("train", "evaluate", "compile", "checkpoint")  # kinds of work with a column in the table of cost
BADGES = {"finished": "good", "failed": "bad", "in progress": "open", "stopped early": "open"}
UNSHOWN = {"packs", "data_dir"}  # packs are shown separately; the location of the data does not affect results


def main(argv: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity report", description=__doc__.splitlines()[0])
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the --workdir of a study or sweep")
    parser.add_argument("--out", required=True, help="the page: FILE.html")
    options = parser.parse_args(argv)
    try:
        out = paths.given(options.out)
        text = report(list(studies.read_all(options.directories)))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except (LabError, OSError) as e:
        sys.exit(f"analysis.report: {e}")
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")


def report(shown: Sequence[Study]) -> str:
    """The page about these studies, as the text of an HTML file.

    Raises:
      LabError: a study cannot be read.
    """
    about = [known.read(study) for study in shown]
    anchors = [f"study{i}" for i in range(1, len(shown) + 1)]
    names = [_name(study) for study in shown]
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    finished = sum(entry.status == "finished" for entry in about)
    protocols = [study for study in shown if remedies.is_one(study)]
    reasons = why.section(shown)
    title = names[0] if len(shown) == 1 else f"{len(shown)} studies of plasticity"
    head = [
        tag("h1", title),
        tag(
            "p",
            f"{finished} of {len(shown)} finished; {sum(entry.runs for entry in about):,} runs on "
            f"{', '.join(dict.fromkeys(_dataset(study) for study in shown))}. Made {made}. "
            "Hover over a point to see its run and value; drag to zoom in, double-click to zoom out. Click a name in a "
            "legend to hide it, double-click it to show it alone.",
            class_="note",
        ),
    ]
    body = [
        tag("header", *head),
        _section("ran", "What ran", overview(shown, about, anchors)),
        _section("claims", "Claims", verdicts.section(judge(shown))),
        *([_section("remedies", "Remedies", treatments(protocols))] if protocols else []),
        *([_section("why", "Why", reasons)] if reasons else []),
        *(
            _section(anchor, name, of_study(study, entry, anchor))
            for study, entry, anchor, name in zip(shown, about, anchors, names, strict=True)
        ),
        _section("cost", "Cost", cost(names, about)),
    ]
    parts = [("ran", "What ran"), ("claims", "Claims")]
    parts += [("remedies", "Remedies")] if protocols else []
    parts += [("why", "Why")] if reasons else []
    contents = [*parts, *zip(anchors, names, strict=True), ("cost", "Cost")]
    return page(title, contents, body)


def overview(shown: Sequence[Study], about: Sequence[Facts], anchors: Sequence[str]) -> Html:
    """A table with one row per study: data, scale, seeds, status, device and commit."""
    rows = [
        [
            join([tag("a", _name(study), href=f"#{anchor}"), tag("small", study.directory)]),
            scale.describe(study),
            len(study.config["seeds"]),
            entry.runs,
            _status(entry),
            entry.device,
            _commit(entry, 10),
        ]
        for study, entry, anchor in zip(shown, about, anchors, strict=True)
    ]
    head = ["study", "data and scale", "seeds", "runs", "status", "device", "commit"]
    return table(head, rows, numbers=[2, 3], wide=True)


def of_study(study: Study, about: Facts, anchor: str) -> Html:
    """The part of the page about one study."""
    drawn: list[Chart] = []
    early: Html | None = None
    try:
        drawn = figures.charts(study)
    except LabError as e:  # too early for figures; everything else can be shown
        early = tag("p", e, class_="note")
    by_metric = [curves.learning(study, f"runs_{metric}", metric) for metric in RUNS]
    each_run = [chart for pack in itertools.zip_longest(*by_metric) for chart in pack if chart]
    facts_of = [
        ("data", _dataset(study)),
        ("status", _status(about)),
        ("seeds", scale.span(study.config["seeds"])),
        ("runs", f"{about.runs}{f', {about.failed} failed' if about.failed else ''}"),
        ("device", about.device),
        ("versions", about.versions),
        ("commit", _commit(about, 40)),
        ("directory", str(study.directory)),
    ]
    links = [tag("a", text, href=f"#{anchor}-{part}") for part, text in PARTS.items()]
    return join(
        [
            tag("p", *links, class_="parts"),
            tag("p", scale.describe(study)),
            facts(facts_of),
            _part(anchor, "figures", early, tag("div", *map(panels.panel, drawn), class_="charts")),
            _part(anchor, "runs", *panels.every_run(each_run)),
            _part(anchor, "numbers", *numbers(study)),
            _part(anchor, "config", _config(study.config)),
        ]
    )


def treatments(protocols: Sequence[Study]) -> Html:
    """The table of `analysis.remedies`."""
    said = (
        "Accuracy with the setting that is best on validation images; the share of the warm start's gap that is "
        "recovered, with Fieller's 95% confidence set; p of the difference to the warm start, from the paired t test "
        "after Holm's correction; time of a step relative to the warm start."
    )
    rows = [
        [cell.replace("-", "\N{MINUS SIGN}") if i in (2, 3, 4) else cell for i, cell in enumerate(row)]
        for row in map(remedies.cells, remedies.rows(protocols))
    ]
    return join(
        [tag("p", said, class_="note"), table(list(remedies.HEAD), rows, numbers=[2, 3, 4, 5, 6, 8], wide=True)]
    )


def numbers(study: Study) -> list[Html]:
    """Tables of the metric of each branch and of the gaps between them."""
    summary = results.summarise(_ended(study), study.config["control"])
    share = f"the last {study.config['window']:.0%} of the last stage"
    branches = [[name, *_moments(each)] for name, each in summary["branches"].items()]
    gaps = [[f"{each['control']} \N{MINUS SIGN} {each['treatment']}", *_moments(each)] for each in summary["contrasts"]]
    head = ["mean", "sd", "95% interval", "n"]
    if not summary["branches"]:
        return [tag("p", "No run has finished yet.", class_="note")]
    tables = [table(["branch", *head], branches, numbers=range(1, 5))]
    tables += [table(["gap, points", *head], gaps, numbers=range(1, 5))] if gaps else []
    return [
        tag("p", f"Test accuracy in percent, averaged over {share}.", class_="note"),
        tag("div", *tables, class_="tables"),
    ]


def cost(names: Sequence[str], about: Sequence[Facts]) -> Html:
    """A table of the cost of every study, from `result.json`, or from the clocks while it is in progress."""
    rows = [
        [
            name,
            entry.runs,
            f"{entry.images:,}" if entry.images is not None else "",
            f"{entry.images_per_second:,.0f}" if entry.images_per_second else "",
            _time(entry.seconds, "total"),
            *(_time(entry.seconds, kind) for kind in KINDS),
            "" if entry.compilations is None else f"{entry.compilations} + {entry.from_cache}",
        ]
        for name, entry in zip(names, about, strict=True)
    ]
    total = sum(entry.seconds.get("total", 0.0) for entry in about)
    images = sum(entry.images or 0 for entry in about)
    counts = [sum(entry.runs for entry in about), f"{images:,}" if images else ""]
    rows.append([tag("b", "all"), *counts, "", duration(total), *[""] * 5])
    head = ["study", "runs", "images", "images/s", "wall time", *KINDS, "programs"]
    said = (
        "Images are those trained on, over all runs; images/s are per second of training only. Programs: compiled + "
        "loaded from the cache at the last start. Cells are empty where a study is in progress or its directory has no "
        "such record."
    )
    return join([tag("p", said, class_="note"), table(head, rows, numbers=range(1, 10), wide=True)])


def _ended(study: Study) -> list[dict[str, Any]]:
    """The finished runs in the form of `result.json`, also while the study is in progress."""
    ended = []
    for label in studies.labels(study):
        branch, point = curves.parts(label)
        for seed, value in studies.values(study, label).items():
            run = {"run": f"{label}/seed{seed}", "seed": seed, "branch": branch, "hparams": point}
            ended.append({**run, "status": "finished", results.METRIC: value})
    return ended


def _config(config: Mapping[str, Any]) -> Html:
    """The resolved config; for each pack its model and stages, where stages that grid points share appear once."""
    shown = {key: value for key, value in config.items() if key not in UNSHOWN}
    packs = {f"pack {pack['name']}": {"model": pack["model"], **_stages(pack)} for pack in config["packs"]}
    return tag("div", *(tree(value, key) for key, value in (shown | packs).items()), class_="config")


def _stages(pack: Mapping[str, Any]) -> dict[str, Any]:
    """The stages of a pack by name, followed by the point of the grid if the name is ambiguous."""
    stages: dict[str, dict[str, Any]] = {}
    for point, plan in pack["plans"]:
        at = f" [{', '.join(f'{key}={value}' for key, value in point)}]"
        for stage in plan:
            alike = stages.setdefault(f"{stage['name']} / {stage['branch']}", {})
            fields = {key: value for key, value in stage.items() if key not in ("name", "branch")}
            if fields not in alike.values():
                alike[at] = fields
    return {name + at * (len(alike) > 1): fields for name, alike in stages.items() for at, fields in alike.items()}


def _section(anchor: str, heading: str, *inside: Html | None) -> Html:
    return tag("section", tag("h2", heading), *inside, id=anchor)


def _part(anchor: str, part: str, *inside: Html | None) -> Html:
    return tag("section", tag("h3", PARTS[part]), *inside, id=f"{anchor}-{part}")


def _name(study: Study) -> str:
    return study.name or study.directory.name


def _dataset(study: Study) -> str:
    return scale.NAMES.get(study.config["dataset"], study.config["dataset"])


def _status(about: Facts) -> Html:
    detail = tag("small", about.detail) if about.detail else ""
    return Html(tag("span", about.status, class_=f"badge {BADGES.get(about.status, 'none')}") + detail)


def _commit(about: Facts, letters: int) -> Html | None:
    if not about.commit:
        return None
    return join([tag("code", about.commit[:letters]), " with changes" if about.changed else None])


def _moments(contrast: Mapping[str, Any]) -> list[str]:
    low, high = contrast["ci95"]
    mean, sd = (f"{contrast[key]:.2f}" if contrast[key] is not None else "" for key in ("mean", "sd"))
    between = "" if low is None else f"{low:.2f} to {high:.2f}"
    return [text.replace("-", "\N{MINUS SIGN}") for text in (mean, sd, between, str(contrast["n"]))]


def _time(seconds: Mapping[str, float], kind: str) -> str:
    return duration(seconds[kind]) if kind in seconds else ""
