"""What a training step costs with each remedy, relative to a step without one; on an otherwise idle machine.

    python -m tests.benchmarks.remedies [--config=small,protocol=half] [--rounds 4]

The argument is that of `configs/remedies.py`.  The last stage of every branch trains briefly on noise instead of the
data set, two seeds side by side, with the first setting of each remedy.  Branches that share a program are measured
once.  What a remedy does only at the start of a stage is not part of a step, so its time is that of `warm`.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from plasticity_jax import study_config
from plasticity_jax.configs import remedies
from plasticity_jax.data import datasets
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.profiling import autotune, cost
from plasticity_jax.runner import output, prepare, windows
from plasticity_jax.runner.parts import complete
from tests.benchmarks import rounds

IMAGES, TESTS, CLASSES, SIDE = 6000, 1000, 10, 32  # as many as `small` needs
PLAIN = "warm"  # the branch without a remedy


def noise() -> Dataset:
    """Images and labels that are pure noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    labels = np.arange(IMAGES) % CLASSES
    return datasets.from_arrays("noise", images, labels, images[:TESTS], labels[:TESTS])


def lanes(arg: str) -> Iterator[tuple[list[str], autotune.Lane]]:
    """(branches, what trains them) for each program of the last stage."""
    wanted = remedies.get_config(arg)
    wanted.update(seeds=(0, 1), grid=())
    study = study_config.parse(wanted)
    (pack,) = study.packs
    context = prepare.compute(pack, study, noise(), complete(None, study))
    last = [times for times in context.timetables.values() if any(run.final for run in times.group.runs)]
    for times in last:
        task, first = autotune.start(context, times)
        images = windows.sample(context, times)

        def lane(steps: int, times=times, task=task, first=first, images=images) -> tuple[int, float]:
            return autotune.train_moment(context.programs, times, task, first, images, steps)

        yield list(dict.fromkeys(run.branch for run in times.group.runs)), lane


def measure(sides: Mapping[str, autotune.Lane], count: int) -> dict[str, list[float]]:
    """The seconds per image of each side, in each of `count` rounds."""
    steps = {name: autotune.look(lane)[0] for name, lane in sides.items()}

    def timed(name: str) -> float:
        shown, seconds = sides[name](steps[name])
        return seconds / shown

    return rounds.interleave({name: lambda name=name: timed(name) for name in sides}, count)


def table(taken: Mapping[str, Sequence[float]], branches: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table of the times of all branches, the program of `PLAIN` first."""
    plain = next(name for name, those in branches.items() if PLAIN in those)
    lines = ["| remedies | time of a step |", "|---|---|"]
    for name in sorted(branches, key=lambda name: name != plain):
        ratio = rounds.ratio(taken, name, plain)
        span = "1" if name == plain else f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        lines.append(f"| {', '.join(f'`{branch}`' for branch in branches[name])} | {span} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    output.outlive_readers()
    parser = argparse.ArgumentParser(description="The time of a training step with each remedy.")
    parser.add_argument("--config", default="small,protocol=half", help="argument of configs/remedies.py")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args(argv)
    with cost.begin():
        sides, branches = {}, {}
        for those, lane in lanes(given.config):
            name = those[0]
            sides[name], branches[name] = lane, those
        print(table(measure(sides, given.rounds), branches))
    return 0


if __name__ == "__main__":
    sys.exit(main())
