"""The measurements as one table and a few lines below it."""

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
UNMEASURED = "not yet measured on a GPU"


def text(report: Entry) -> str:
    """The report, at most 130 columns wide; `report` is what is written as JSON."""
    modes = report["plan"]["modes"]
    lines = [
        _line(
            "runs",
            "images/s",
            "x one run",
            [f"x torch {mode}" for mode in modes],
            "GFLOP/s",
            "matmul",
            "compile",
            "MB/run",
        )
    ]
    for case in report["cases"]:
        lines += ["", f"{case['name']}; matrix product {case['matmul_flops'] / 1e9:,.0f} GFLOP/s"]
        for row in case["rows"]:
            lines.append(_row(row, modes))
        for mode, entry in case["torch"].items():
            name = f"torch {mode}"
            if "error" in entry:
                lines.append(f"{name}: {entry['error']}")
                continue
            empty = ["" for _ in modes]
            lines.append(_line(name, *_speed(entry), "", empty, *_work(entry), f"{entry['build_seconds']:.1f} s", ""))
    for entry in report["growth"]:
        further = "-" if entry["further_run_bytes"] is None else f"{entry['further_run_bytes'] / 1e6:.1f} MB"
        times = "-" if entry["time"] is None else f"{entry['time']:.2f}"
        lines += [] if entry is not report["growth"][0] else ["", f"growth from one run ({report['plan']['growth']})"]
        lines.append(
            f"  {entry['runs']} {entry['strategy']}: {times} x the time of one run, {further} for each further run"
        )
    if report["real"]:
        lines += ["", *_real(report["real"])]
    return "\n".join([*lines, "", *_notes(report)])


def _row(row: Entry, modes: Sequence[str]) -> str:
    name = f"{row['runs']} {row['strategy']}"
    if "error" in row:
        return f"{name}: {row['error']}"
    ratios = [_ratio(row["of_torch"][mode]) for mode in modes]
    memory = "-" if row["run_bytes"] is None else f"{row['run_bytes'] / 1e6:.1f}"
    return _line(
        name, *_speed(row), _ratio(row["of_one_run"]), ratios, *_work(row), f"{row['compile_seconds']:.1f} s", memory
    )


def _speed(entry: Entry) -> tuple[str]:
    return (f"{entry['images_per_second']['median']:,.0f}",)


def _work(entry: Entry) -> tuple[str, str]:
    return f"{entry['flops'] / 1e9:,.1f}", f"{100 * entry['of_matmul']['median']:.1f} %"


def _ratio(spread: Mapping[str, float] | None) -> str:
    return f"{spread['median']:.2f} [{spread['low']:.2f}, {spread['high']:.2f}]" if spread else "-"


def _line(
    name: str, speed: str, one: str, torch: Sequence[str], flops: str, share: str, compiling: str, memory: str
) -> str:
    cells = [f"{speed:>10}", f"{one:>19}", *(f"{ratio:>19}" for ratio in torch), f"{flops:>9}", f"{share:>7}"]
    return f"{name:<14}" + " ".join([*cells, f"{compiling:>8}", f"{memory:>7}"])


def _real(real: Entry) -> list[str]:
    ranked = sorted(real["shares"].items(), key=lambda pair: -pair[1])
    parts = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in ranked)
    return [
        f"real run ({' '.join(real['arguments'])}): {real['wall_seconds']:.1f} s: {parts}",
        f"  bare training programs: {real['bare_seconds']:.2f} s, {100 * real['of_bare']:.1f} % of all but evaluation",
    ]


def _notes(report: Entry) -> list[str]:
    machine, torch = report["machine"], report["torch"]
    about = (
        torch.get("error")
        or f"PyTorch {torch['version']} on {torch['device']}, {report['plan']['batch']} images a batch"
    )
    versions = f"jax {machine['packages'].get('jax')}, {machine['backend']} ({machine['device_kind']})"
    return [
        f"{machine['processor']}, {machine['cpu_threads']} threads, load {machine['load']:.1f} before; {versions}",
        about,
        f"ratios: median [least, greatest] of {report['plan']['rounds']} rounds, everything of a case in turn in each",
        *([UNMEASURED] if machine["backend"] == "cpu" else []),
    ]
