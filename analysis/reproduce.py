"""Train a published study again from its config.json and compare the results.

    python -m analysis.reproduce analysis/results/multistage --workdir=runs/again [--data_dir=DIR] [--bits]

The study is trained as a sweep with one job per pack (`plasticity status runs/again` shows its progress; the same
command resumes it).  Then runs are compared one by one: the SHA-256 of the parameters, and every measurement.  They are
equal bit for bit on the same kind of machine with the same versions and strategy.  Elsewhere rounding differs and
training amplifies the differences.  So for each branch the differences in test accuracy between the two runs of a seed
get a Student's t interval.  The study agrees if all intervals contain zero, at a joint level of 95 % (Bonferroni).

Exit status: 0 bitwise equal, or agreement; 1 neither, or not bitwise equal with --bits; 75 stopped.
"""

import argparse
import contextlib
import dataclasses
import math
import signal
import statistics
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
    """The runs of a branch.

    published, here: mean test accuracy of the published and of the new runs, in percent.
    differences: new minus published, by seed.
    low, high: the interval of the mean difference; None if it is undefined.
    """

    label: str
    published: float
    here: float
    differences: tuple[float, ...]
    low: float | None
    high: float | None

    @property
    def agrees(self) -> bool:
        """Whether the interval contains zero."""
        if self.low is None or self.high is None:
            return not any(self.differences)
        return self.low <= 0 <= self.high


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A published study compared with a new one.

    runs, same_runs: the number of published runs, and of those with equal parameters.
    rows, same_rows: the number of published measurements, and of those with equal values.
    missing: runs that the new study lacks, or that ended with another status.
    facts: the entries of the environment that differ.
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
        """Whether all parameters and measurements are equal bit for bit."""
        return self.same_runs == self.runs and self.same_rows == self.rows

    @property
    def agrees(self) -> bool:
        """Whether no run is missing and no branch differs significantly."""
        return self.same_bits or (not self.missing and all(branch.agrees for branch in self.branches))


def plan(published: Path, sweep: Path, data_dir: str = "") -> Path:
    """Plans a published study as a sweep, unless this was done before; returns the directory of the study in it.

    Raises:
      LabError: `published` has no result, or `sweep` holds another study.
    """
    if not analysis.has_result(published):
        raise LabError(f"{published} has no result to compare with; give a study that has finished")
    config = {**analysis.load_config(published), "data_dir": data_dir}
    taken = {choice.get("strategy") for choice in analysis.load_environment(published).get("choices", {}).values()}
    if len(taken) == 1:  # the strategy that `auto` chose then; if there were several, each pack chooses again
        config["strategy"] = taken.pop() or config["strategy"]
    study, key = restore_study(config, str(published)), published.resolve().name
    path = sweep / key / "config.json"
    if path.exists() or (sweep / "sweep.json").exists():
        if not path.exists() or {**workdir.read_json(path), "data_dir": data_dir} != config:
            raise LabError(f"{sweep} holds another study than {published}; give another --workdir")
    else:
        workdir.write_json(path, config)
        planned = [
            jobs.Job(pack.name, key, pack.name, tuple(range(len(pack.plans))), study.seeds, 0, 0, None, None)
            for pack in study.packs
        ]
        jobs.write(sweep, planned)
    return sweep / key


def train(sweep: Path) -> int:
    """Runs the missing jobs of a planned sweep; returns the exit status of `launch.local`.  Signals are passed on."""
    child = subprocess.Popen([sys.executable, "-m", "plasticity_jax.launch.local", f"--workdir={sweep}"])
    before = signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # the child receives it too, and saves
                return child.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def compare(published: analysis.Directory, again: analysis.Directory) -> Comparison:
    """Compares a new study with the published one.

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
    """The runs of a result by PACK/NAME."""
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
    """The comparison as text."""
    lines = [
        f"{name}: {comparison.same_runs:,} of {comparison.runs:,} runs have equal parameters, and "
        f"{comparison.same_rows:,} of {comparison.rows:,} measurements equal values, bit for bit"
    ]
    if comparison.facts:
        lines += [f"  computed with another {', '.join(comparison.facts)} (see environment.json of both)"]
    lines += [f"  {run} is missing, or ended with another status" for run in comparison.missing]
    if not comparison.same_bits:
        lines += [f"  {'branch':<50} {'published':>9} {'here':>9} {'difference':>10}  interval, joint level 95 %"]
        for branch in comparison.branches:
            mean = statistics.fmean(branch.differences)
            ends = [f"{end:+.2f}" for end in (branch.low, branch.high) if end is not None]
            between = f"[{', '.join(ends)}]" if ends else "none"
            mark = "" if branch.agrees else "  differs"
            numbers = f"{branch.published:>9.2f} {branch.here:>9.2f} {mean:>+10.2f}"
            lines += [f"  {branch.label:<50} {numbers}  {between}{mark}"]
    verdict = "bitwise equal" if comparison.same_bits else "agrees" if comparison.agrees else "DIFFERS"
    return "\n".join([*lines, f"{name}: {verdict}"])


def main(argv: Sequence[str] | None = None) -> int:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="a published study, as analysis/results/multistage")
    parser.add_argument("--workdir", required=True, help="where to train; the same directory again resumes")
    parser.add_argument("--data_dir", default="", help="where the data are, if not in the default directory")
    parser.add_argument("--bits", action="store_true", help="fail unless all results are equal bit for bit")
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
