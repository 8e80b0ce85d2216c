"""Studies that take a second from config to result; a test changes only what it tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

import plasticity_jax
from plasticity_jax.configs import base
from plasticity_jax.data import datasets
from plasticity_jax.storage import metrics

WARM = {"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}}


class Net(nn.Module):
    """The smallest network with a convolution and running statistics; it returns the logits alone."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(4, (3, 3), (2, 2), name="conv")(images)
        x = nn.relu(nn.BatchNorm(not train, name="norm")(x))
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


def dataset(train: int = 96, test: int = 60, noise: float = 0.3, seed: int = 0) -> datasets.Dataset:
    """Grey 8x8 images of three classes, which differ in one bright column; a fraction of the labels is wrong."""
    rng = np.random.default_rng(seed)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 3, n)
        images = rng.integers(0, 200, (n, 8, 8, 1), dtype=np.uint8)
        images[np.arange(n), :, 2 * labels + 1] += 40
        wrong = rng.random(n) < noise
        return images, np.where(wrong, rng.integers(0, 3, n), labels)

    return datasets.from_arrays("toy", *part(train), *part(test))


TOY = dataset()


def config(**top: Any) -> ConfigDict:
    """`pretrain` on a half, 2 epochs of 3 steps, then `tune` on all, 3 epochs of 6 steps, for two seeds."""
    config = base.base()
    config.seeds = (0, 1)
    config.model.update(name="mlp", depth=1, width=8)
    config.diagnostics = ()
    config.eval_batch = 16  # of 60 test images: the last batch is not full
    config.strategy = "loop"  # compiles the fewest programs
    config.window = 0.5
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=2.0)
    config.stages.tune = stage(epochs=3.0, branches=WARM)
    config.update(top)
    return config


def branches(**found: Any) -> ConfigDict:
    """Branches in the given order."""
    return ConfigDict(found, sort_keys=False)


def stage(**fields: Any) -> ConfigDict:
    """A stage of small batches that is evaluated every epoch."""
    rule = base.optimiser("momentum", learning_rate=0.1)
    return base.stage(**{"batch_size": 16, "eval_every": 1, "optim": rule} | fields)


def single(**fields: Any) -> ConfigDict:
    """A study of one stage `train`."""
    found = config(control="train")
    found.stages = ConfigDict({"train": stage(**{"epochs": 3.0} | fields)})
    return found


def run(config: ConfigDict, directory: Path, **given: Any) -> dict[str, Any]:
    return plasticity_jax.run(config, directory, **{"dataset": TOY} | given)


def rows(directory: Path, stage: str = "tune", pack: str = "main", **fields: Any) -> list[metrics.Row]:
    """The rows of a stage whose `fields` have the given values."""
    found = metrics.read(directory / pack / stage / "metrics.jsonl")
    return [row for row in found if all(row[key] == value for key, value in fields.items())]


def curve(directory: Path, run: str, metric: str = "test_accuracy", stage: str = "tune") -> dict[int, float]:
    """step -> value of one metric of one run."""
    return {row["step"]: row["value"] for row in rows(directory, stage, run=run, metric=metric)}


def numbers(rows: list[metrics.Row]) -> str:
    """All measurements and their times without the run's name: equal if and only if all bits are equal."""
    return repr([(row["epoch"], row["step"], row["metric"], row["value"]) for row in rows])


def hashes(result: Mapping[str, Any]) -> dict[str, str]:
    """run -> SHA-256 of its final parameters."""
    return {run["run"]: run["params_sha256"] for run in result["runs"]}


def tables(directory: Path) -> dict[str, bytes]:
    """path -> content of every table below a working directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("metrics.jsonl")}
