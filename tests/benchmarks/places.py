"""The cost of keeping images elsewhere than on the device: memory, and the share of training that waits for them.

    python -m tests.benchmarks.places [--images 100000] [--places device,host,disk] [--epochs 1] [--data_dir DIR]

Images are noise of 64x64 pixels and 16 levels in 200 classes, prepared in TFDS's form below DIR (by default a temporary
directory).  One ResNet-18 of width 8 with the ImageNet stem trains on them, in a process of its own for each place.
Printed are its largest resident memory, images/s of training, and the share of training spent waiting for images;
every place must give the same bits.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plasticity_jax import strict_json
from plasticity_jax.runner import output
from tests.support import prepared

CLASSES, SIDE, TESTS = 200, 64, 2000
DISTINCT = 1999


def prepare(root: Path, count: int) -> None:
    """Write the data set `noise`, unless it is there."""
    if (root / "noise").exists():
        return
    rng = np.random.default_rng(0)
    # Of 16 levels, since TFDS needs TensorFlow to prepare more than 1 GB; only some of them differ, to save time.
    files = [prepared.png(16 * rng.integers(0, 16, (SIDE, SIDE, 3), np.uint8)) for _ in range(DISTINCT)]
    written = {
        split: ([files[number % DISTINCT] for number in range(size)], (np.arange(size) % CLASSES).tolist())
        for split, size in {"train": count, "test": TESTS}.items()
    }
    prepared.write(root, "noise", written, [f"class{i}" for i in range(CLASSES)], shape=(SIDE, SIDE, 3))


def train(root: str, place: str, epochs: float, directory: str) -> dict[str, Any]:
    """Train in this process; returns the numbers to print."""
    import plasticity_jax
    from plasticity_jax.configs import base
    from plasticity_jax.storage import workdir

    config = base.base()
    config.update(dataset="noise", data_dir=root, images=place, seeds=(0,), control="train", diagnostics=())
    config.model.update(name="resnet", depth=2, width=8, stem="imagenet", dtype="float32")
    config.stages.train = base.stage(epochs=epochs, eval_every=1)
    result = plasticity_jax.run(config, directory)
    clock = workdir.read_json(Path(directory) / "main" / "clock.json")
    return {
        "place": place,
        "sha256": result["runs"][0]["params_sha256"],
        "resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "images_per_second": result["images"] / clock["train"],
        "input_share": clock.get("input", 0.0) / clock["train"],
        "gather_share": clock.get("gather", 0.0) / clock["train"],
        "seconds": clock,
    }


def main(argv: Sequence[str] | None = None) -> int:
    output.outlive_readers()
    parser = argparse.ArgumentParser(description="Memory and waiting by where images are stored.")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--places", default="device,host,disk")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)  # in a process of its own
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="places-") as scratch:
        if given.only:
            print(strict_json.dumps(train(given.data_dir, given.only, given.epochs, scratch)))
            return 0
        root = Path(given.data_dir or scratch).absolute()
        prepare(root, given.images)
        rows = []
        for place in given.places.split(","):
            call = [sys.executable, "-m", "tests.benchmarks.places", "--only", place, "--data_dir", str(root)]
            done = subprocess.run([*call, "--epochs", str(given.epochs)], stdout=subprocess.PIPE, text=True, check=True)
            rows.append(strict_json.loads(done.stdout.strip().splitlines()[-1]))
            print(line(rows[-1]), flush=True)
    same = len({each["sha256"] for each in rows}) == 1
    print("the same bits" if same else "OTHER BITS")
    return 0 if same else 1


def line(row: dict[str, Any]) -> str:
    """The measurements of one place, as a line."""
    return (
        f"{row['place']:8}{row['resident_bytes'] / 1e6:8,.0f} MB{row['images_per_second']:8,.0f} images/s  "
        f"waits {100 * row['input_share']:.1f} % of training; reading and sending takes "
        f"{100 * row['gather_share']:.1f} % of that time"
    )


if __name__ == "__main__":
    sys.exit(main())
