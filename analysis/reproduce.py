"""A published study trained again from its config.json, and held against what is published.

    python -m analysis.reproduce analysis/results/multistage --workdir=runs/again [--data_dir=DIR] [--bits]

trains the study as a sweep with a job for each pack (`plasticity status runs/again` says how far it is; the same
command goes on with it), then compares run by run: the SHA-256 of the parameters and every measurement.  The same kind
of machine, versions and strategy give the same bits.  Elsewhere roundings differ, and training takes them apart, so for
each branch the differences in test accuracy between the two runs of a seed have an interval of Student's t; the study
agrees if all of them hold zero, of a joint level of 95 % (Bonferroni).

Exit status: 0 the same bits, or agreement; 1 neither, or other bits where --bits asks for them; 75 stopped.
"""

import argparse
import contextlib
import dataclasses
import math
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax import analysis
from plasticity_jax.analysis.effects import stats
from plasticity_jax.config import paths
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import LabError
from plasticity_jax.launch import jobs
from plasticity_jax.runner import output
from plasticity_jax.storage import results, workdir

ROW = ["pack", "run", "stage", "step", "metric"]
FACTS = ("backend", "device_kind", "devices", "cpu_threads", "packages", "choices", "commit", "dataset")


@dataclasses.dataclass(frozen=True)
class Branch:
    """The runs of a branch: mean test accuracy published and here, and their differences seed by seed.

    low, high: of the interval of the mean difference; None where there is none.
    """

    label: str
    published: float
    here: float
    differences: tuple[float, ...]
    low: float | None
    high: float | None

    @property
    def agrees(self) -> bool:
        """Whether zero may be the mean difference."""
        if self.low is None or self.high is None:
            return not any(self.differences)
        return self.low <= 0 <= self.high


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What became of a study.

    runs, same_runs: all that are published, and those with the same parameters here.  rows, same_rows: measurements.
    missing: runs that ended otherwise, or are not here.  facts: of the environment, those that differ.
    """

    runs: int
    same_runs: int
    rows: int
    same_rows: int
    missing: tuple[str, ...]
    facts: tuple[str, ...]
    branches: tuple[Branch, ...]

    @property
    def same_bits(self) -> bool:
        """Whether everything is the same to the last bit."""
        return self.same_runs == self.runs and self.same_rows == self.rows

    @property
    def agrees(self) -> bool:
        """Whether no branch differs by more than roundings would explain."""
        return self.same_bits or (not self.missing and all(branch.agrees for branch in self.branches))


def plan(published: Path, sweep: Path, data_dir: str = "") -> Path:
    """Plan the study in a directory as a sweep, unless that is done; returns the directory of the study there.

    Raises:
      LabError: it is no study, or the directory belongs to something else.
    """
    if not analysis.has_result(published):
        raise LabError(f"{published} has no result to compare with; give a study that has finished")
    config = {**analysis.load_config(published), "data_dir": data_dir}
    taken = {choice.get("strategy") for choice in analysis.load_environment(published).get("choices", {}).values()}
    if len(taken) == 1:  # what `auto` was then; of several, each pack has to choose again
        config["strategy"] = taken.pop() or config["strategy"]
    study, key = restore_study(config, str(published)), published.resolve().name
    path = sweep / key / "config.json"
    if path.exists() or (sweep / "sweep.json").exists():
        if not path.exists() or {**workdir.read_json(path), "data_dir": data_dir} != config:
            raise LabError(f"{sweep} holds something else than {published}; give another --workdir")
    else:
        workdir.write_json(path, config)
        planned = [
            jobs.Job(pack.name, key, pack.name, tuple(range(len(pack.plans))), study.seeds, 0, 0, None, None)
            for pack in study.packs
        ]
        jobs.write(sweep, planned)
    return sweep / key


def train(sweep: Path) -> int:
    """Run what is missing of a planned sweep; returns the exit status of `launch.local`, which a signal stops."""
    child = subprocess.Popen([sys.executable, "-m", "plasticity_jax.launch.local", f"--workdir={sweep}"])
    before = signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the child has it too, and saves
                return child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def compare(published: analysis.Directory, again: analysis.Directory) -> Comparison:
    """Hold a study against what is published of it.

    Raises:
      LabError: one of them has not finished.
    """
    runs, here = (_runs(analysis.load_result(directory)) for directory in (published, again))
    values = [analysis.load(directory).set_index(ROW).value for directory in (published, again)]
    rows, other = (each[~each.index.duplicated()] for each in values)
    paired = other.reindex(rows.index)
    same_rows = int(((rows == paired) | (rows.isna() & paired.isna() & rows.index.isin(other.index))).sum())
    facts, new = analysis.load_environment(published), analysis.load_environment(again)
    lost = [name for name, run in runs.items() if here.get(name, {}).get("status") != run["status"]]
    return Comparison(
        runs=len(runs),
        same_runs=sum(here.get(name, {}).get("params_sha256") == run["params_sha256"] for name, run in runs.items()),
        rows=len(rows),
        same_rows=same_rows,
        missing=tuple(lost),
        facts=tuple(fact for fact in FACTS if facts.get(fact) != new.get(fact)),
        branches=tuple(_branches(runs, here)),
    )


def _runs(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The runs of a result by pack and name."""
    return {f"{run['pack']}/{run['run'].removeprefix(run['pack'] + '/')}": run for run in result["runs"]}


def _branches(runs: Mapping[str, Mapping[str, Any]], here: Mapping[str, Mapping[str, Any]]) -> list[Branch]:
    pairs: dict[str, list[tuple[float, float]]] = {}
    for name, run in runs.items():
        old, new = run["test_accuracy"], here.get(name, {}).get("test_accuracy")
        if old is not None and new is not None:
            pairs.setdefault(results.label(run), []).append((old, new))
    branches = []
    for label, numbers in pairs.items():
        differences = tuple(new - old for old, new in numbers)
        low, high = results.interval(differences, 1 - stats.ERROR / len(pairs))
        before, now = (math.fsum(each) / len(numbers) for each in zip(*numbers, strict=True))
        branches.append(Branch(label, before, now, differences, low, high))
    return branches


def describe(name: str, comparison: Comparison) -> str:
    """What became of a study, for people."""
    lines = [
        f"{name}: {comparison.same_runs:,} of {comparison.runs:,} runs have the same parameters, and "
        f"{comparison.same_rows:,} of {comparison.rows:,} measurements the same value, to the last bit"
    ]
    if comparison.facts:
        lines += [f"  computed with another {', '.join(comparison.facts)} (environment.json of both says which)"]
    lines += [f"  {run} has ended otherwise, or is not here" for run in comparison.missing]
    if not comparison.same_bits:
        lines += [f"  {'branch':<50} {'published':>9} {'here':>9} {'difference':>10}  interval, of all 95 %"]
        for branch in comparison.branches:
            mean = sum(branch.differences) / len(branch.differences)
            ends = [f"{end:+.2f}" for end in (branch.low, branch.high) if end is not None]
            between = f"[{', '.join(ends)}]" if ends else "none"
            mark = "" if branch.agrees else "  differs"
            numbers = f"{branch.published:>9.2f} {branch.here:>9.2f} {mean:>+10.2f}"
            lines += [f"  {branch.label:<50} {numbers}  {between}{mark}"]
    verdict = "the same bits" if comparison.same_bits else "agrees" if comparison.agrees else "DIFFERS"
    return "\n".join([*lines, f"{name}: {verdict}"])


def main(argv: Sequence[str] | None = None) -> int:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="a published study, as analysis/results/multistage")
    parser.add_argument("--workdir", required=True, help="where to train; the same one again goes on")
    parser.add_argument("--data_dir", default="", help="where the data lie, if not at the usual place")
    parser.add_argument("--bits", action="store_true", help="fail unless everything is the same to the last bit")
    options = parser.parse_args(argv)
    try:
        published, sweep = paths.given(options.directory), paths.given(options.workdir)
        study = plan(published, sweep, options.data_dir)
        if status := train(sweep):
            return status
        comparison = compare(published, study)
    except (LabError, OSError) as e:
        sys.exit(f"analysis.reproduce: {e}")
    print(describe(published.resolve().name, comparison))
    return int(not (comparison.same_bits if options.bits else comparison.agrees))


if __name__ == "__main__":
    sys.exit(main())
