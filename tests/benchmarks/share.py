"""How a real run's wall-clock time is spent, and how close it comes to its bare training programs."""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl.testing import flagsaver
from ml_collections import ConfigDict

import plasticity_jax
from plasticity_jax import main as command
from plasticity_jax import study_config
from plasticity_jax.data import datasets
from plasticity_jax.runner import commandline, prepare
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.storage import workdir
from tests.benchmarks import ours, rounds


def shares(directory: Path, wall: float) -> dict[str, float]:
    """Share of the `wall` seconds by kind of work, from the directory's `result.json`; `waiting` is what is left.

    Work beside the main thread counts as well, so with enough of it `waiting` is below zero.
    """
    seconds = workdir.read_json(directory / "result.json")["seconds"]
    found = {kind: spent / wall for kind, spent in seconds.items() if kind != "total"}
    return found | {"waiting": 1 - sum(found.values())}


def real(arguments: Sequence[str], seconds: float) -> dict[str, Any]:
    """Do what `plasticity_jax.main` does with these arguments, then time the bare programs of the same stages.

    of_bare: bare training time over wall minus evaluation; 1 would be a run that does nothing but train and evaluate.

    Raises:
      LabError: as `plasticity_jax.run`.
      SystemExit: arguments that the command refuses; it has said why.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        directory = Path(scratch) / "run"
        wanted = config_of([*arguments, f"--workdir={directory}"])
        start = time.perf_counter()
        result = plasticity_jax.run(wanted, directory)
        wall = time.perf_counter() - start
        fractions = shares(directory, wall)
        choices = workdir.read_json(directory / "environment.json")["choices"]
    bare, planned = 0.0, 0
    for times, rate in rates(wanted, choices, seconds):
        bare += times.images() / rate
        planned += times.images()
    bare *= result["images"] / planned  # less, if runs ended early
    return {
        "arguments": list(arguments),
        "wall_seconds": wall,
        "seconds": result["seconds"],
        "shares": fractions,
        "images": result["images"],
        "bare_seconds": bare,
        "of_bare": bare / (wall - result["seconds"].get("evaluate", 0.0)),
    }


def rates(
    wanted: ConfigDict, choices: Mapping[str, Mapping[str, str]], seconds: float
) -> Iterator[tuple[Timetable, float]]:
    """The timetable of every stage, and the images/s of its training program alone.

    Args:
      wanted: the config of the study.
      choices: strategy and dtype by pack, as environment.json has them.
      seconds: how long to train for one of three measurements, of which the fastest counts.
    """
    study = study_config.parse(wanted)
    dataset = datasets.load(*study.data)
    for pack in study.packs:
        groups = prepare.draw_up(pack, study, dataset)
        slots = max(len(pool.indices) for times in groups.values() for pool in times.pools)
        for times in groups.values():
            choice = choices[pack.name]
            model = dataclasses.replace(pack.model, dtype=choice["dtype"])
            built = ours.build(model, times, choice["strategy"], dataset, slots)
            steps = rounds.steps_for(built.train, seconds)
            yield times, steps * built.step_images / min(built.train(steps) for _ in range(3))


def config_of(arguments: Sequence[str]) -> ConfigDict:
    """The config that these command-line arguments mean."""
    argv, sys.argv = sys.argv, ["plasticity_jax.main", *arguments]  # where ml_collections looks for overrides
    try:
        with flagsaver.flagsaver():  # which also forgets the overrides that were defined on the way
            commandline.parse(sys.argv)
            return command.CONFIG.value
    finally:
        sys.argv = argv
