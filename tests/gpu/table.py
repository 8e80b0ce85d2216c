"""The measurements on a GPU as Markdown: `python -m tests.gpu.table FILE..`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax import strict_json
from plasticity_jax.runner import output

Entry = Mapping[str, Any]
HEADS = ("width", "stem", "strategy", "runs", "images/s", "least to most", "x torch.compile", "of the matrix rate")


def markdown(report: Entry) -> str:
    """Checks, cells and Figure 1 as Markdown."""
    machine = report.get("machine", {})
    lines = [f"{machine.get('device_kind')}, jax {machine.get('packages', {}).get('jax')}", ""]
    lines += [*checks(report["checks"]), "", *speeds(report["cells"])]
    goal = report.get("goal", {})
    if goal.get("measured"):
        lines += [
            "",
            f"8 runs, width 64, ImageNet stem: {goal['measured']:,.0f} images/s, goal {goal['images_per_second']:,}",
        ]
    if report["figure"].get("choice"):
        lines += ["", figure(report["figure"])]
    return "\n".join(lines)


def checks(entries: Entry) -> Iterator[str]:
    """A line for each check."""
    for title, entry in entries.items():
        if "error" in entry:
            yield f"- {title}: not checked, {entry['error']}"
            continue
        verdict = "as it should be" if entry["ok"] else "WRONG"
        more = f" ({', '.join(entry['wrong'])})" if entry.get("wrong") else ""
        if "relative" in entry:
            more = " (the same bits)" if entry["same_bits"] else f" (relative difference {entry['relative']:.1e})"
        yield f"- {title}: {verdict}{more}"


def speeds(cells: Sequence[Entry]) -> Iterator[str]:
    """A table row for each cell; a failed one has its reason."""
    yield f"| {' | '.join(HEADS)} |"
    yield f"|{'---|' * len(HEADS)}"
    for row in cells:
        start = [str(row[name]) for name in ("width", "stem", "strategy", "runs")]
        if "images_per_second" not in row:
            yield f"| {' | '.join([*start, row.get('error', '?'), '', '', ''])} |"
            continue
        images = row["images_per_second"]
        ratio = f"{row['of_torch']:.2f}" if "of_torch" in row else "-"
        numbers = [f"{images['median']:,.0f}", f"{images['low']:,.0f} to {images['high']:,.0f}", ratio]
        share = f"{100 * row['of_matmul']:.1f} %"
        yield f"| {' | '.join([*start, *numbers, share])} |"


def figure(found: Entry) -> str:
    """One line on the study."""
    seeds, pretrain, tune = found["choice"]
    study, result = found.get("study", {}), found.get("result") or found.get("error", "?")
    return f"Figure 1, {seeds} seeds, {pretrain} + {tune} epochs: {result}; {study.get('images') or 0:,} images"


def main(argv: Sequence[str]) -> int:
    output.outlive_readers()
    for file in argv:
        print(markdown(strict_json.loads(Path(file).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
