"""Compute the loss on the straight line between the weights of the fresh and the warm network of each seed.

    python -m plasticity_jax.lines DIR [--between FRESH WARM]

Two networks in one basin have no barrier of the loss between them (Frankle et al. 2020, arXiv 1912.05671).  The
networks of DIR and its data must be available.  `analysis.figures` and `analysis.report` show the file that is written,
and `analysis.collect` copies it:

DIR/lines.json           {"from": branch, "to": branch, "images": count, "loss": {seed: [losses at equal distances]}}
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasticity_jax import strict_json
from plasticity_jax.config import paths
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import LabError
from plasticity_jax.runner import output
from plasticity_jax.runner.between import connectivity
from plasticity_jax.storage import workdir
from plasticity_jax.storage.results import LINES

WARM = ("warm", "pretrain+tune")  # the names of the warm start in shipped studies
IMAGES = 2048  # training images over which the loss is averaged


def main(argv: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity lines", description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="the --workdir of a study")
    parser.add_argument("--between", nargs=2, metavar=("FRESH", "WARM"), help="two branches of its last stage")
    parser.add_argument("--images", type=int, default=IMAGES, help="training images over which the loss is averaged")
    options = parser.parse_args(argv)
    try:
        directory = paths.given(options.directory)
        lines = measure(directory, options.between, options.images)
        (directory / LINES).write_text(strict_json.dumps(lines) + "\n")
    except (LabError, OSError) as e:
        sys.exit(f"plasticity_jax.lines: {e}")
    print(f"{directory / LINES}: from {lines['from']} to {lines['to']}, {len(lines['loss'])} seeds")


def measure(
    directory: Path, between: Sequence[str] | None = None, images: int = IMAGES, **custom: Any
) -> dict[str, Any]:
    """Returns the content of `lines.json`: the losses between two branches, by default the control and the warm start.

    Seeds with a diverged network are left out.  `custom` are the arguments `model` and `dataset` of `connectivity`.

    Raises:
      LabError: there are no such branches, or their networks or the data cannot be loaded.
    """
    study = restore_study(workdir.read_json(directory / "config.json"), f"{directory}/config.json")
    branches = {stage.branch for pack in study.packs for _, plan in pack.plans for stage in plan}
    warm = next((name for name in WARM if name in branches), None)
    if not between and not warm:
        raise LabError(f"{directory} has no branch called {' or '.join(WARM)}; name two: --between FRESH WARM")
    start, end = between or (study.control, warm)
    losses = {}
    for seed in study.seeds:
        ends = [(directory, {"branch": branch, "seed": seed}) for branch in (start, end)]
        losses[seed] = connectivity(*ends, images=images, **custom)["loss"]
    finite = {str(seed): loss for seed, loss in losses.items() if all(map(math.isfinite, loss))}
    return {"from": start, "to": end, "images": images, "loss": finite}


if __name__ == "__main__":
    main()
