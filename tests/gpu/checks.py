"""Whether a GPU computes correctly: small studies that must agree, each trained by its own process.

On every backend a run has the same bits alone, in company and after a stop, and the same numbers but for rounding with
other strategies, and with and without CUDA graphs.
"""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tests.gpu.worker import Crew, Entry

SEED = 1  # of the run that is compared
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
NO_GRAPHS = "--xla_gpu_enable_command_buffer="
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # or float32 is rounded to TF32 in products
ROUNDING = 1e-4  # of float32 after `SHORT`, as the lab promises
SHORT, LONG = 2, 12  # epochs of 4 steps


class Study(NamedTuple):
    """One training: strategy, seeds, type, number of epochs, and flags of XLA.

    stopped: whether it is stopped by SIGTERM on the way, and resumed.
    """

    strategy: str
    seeds: tuple[int, ...]
    dtype: str
    epochs: int
    flags: str = DETERMINISTIC
    stopped: bool = False


class Comparison(NamedTuple):
    """Two studies that must agree, to a relative difference of at most `most`."""

    one: str
    other: str
    most: float


STUDIES = {
    "together": Study("map", (0, SEED, 2), "bfloat16", LONG),
    "stopped": Study("map", (0, SEED, 2), "bfloat16", LONG, stopped=True),
    "alone": Study("map", (SEED,), "bfloat16", LONG),
    "turns": Study("map", (0, SEED, 2), "float32", SHORT),
    "batched": Study("batched", (0, SEED, 2), "float32", SHORT),
    "no graphs": Study("map", (0, SEED, 2), "float32", SHORT, f"{DETERMINISTIC} {NO_GRAPHS}"),
    "batched, no graphs": Study("batched", (0, SEED, 2), "float32", SHORT, f"{DETERMINISTIC} {NO_GRAPHS}"),
}
COMPARISONS = {
    "bits alone and in company": Comparison("alone", "together", 0.0),
    "bits after a stop": Comparison("stopped", "together", 0.0),
    "batched against map": Comparison("batched", "turns", ROUNDING),
    "graphs on and off, map": Comparison("no graphs", "turns", ROUNDING),
    "graphs on and off, batched": Comparison("batched, no graphs", "batched", ROUNDING),
}


def run(
    crew: Crew, entries: Entry, scratch: Path, seconds: Callable[[], float], note: Callable[[], None], model: str
) -> None:
    """Fill `entries` with what agrees of networks of `models.MODELS`; `note` is called after each entry."""
    asks: dict[str, Callable[[], Entry]] = {"golden step": lambda: crew.alone(seconds(), environ=EXACT, do="golden")}
    for name, training in STUDIES.items():
        asks[name] = _asking(crew, training, scratch / name, seconds, model)
    trained: dict[str, Entry] = {}
    for name, entry in crew.at_once(asks):
        (entries if name == "golden step" else trained)[name] = entry
        pairs = {title: pair for title, pair in COMPARISONS.items() if title not in entries}
        for title, pair in pairs.items():
            if {pair.one, pair.other} <= set(trained):
                entries[title] = judged(trained[pair.one], trained[pair.other], pair.most)
        note()


def _asking(crew: Crew, study: Study, directory: Path, seconds: Callable[[], float], model: str) -> Callable[[], Entry]:
    environ = EXACT if study.dtype == "float32" else {}
    asked = study._asdict() | {"directory": str(directory), "model": model}
    return lambda: crew.alone(seconds(), asked.pop("flags"), environ, do="study", **asked)


def judged(one: Entry, other: Entry, most: float) -> Entry:
    """Whether two trainings agree, or the error of the one that failed."""
    for entry in (one, other):
        if "error" in entry:
            return {"error": entry["error"]}
    same = one["sha256"] == other["sha256"]
    relative = difference(Path(one["weights"]), Path(other["weights"]))
    return {"ok": same or relative < most, "same_bits": same, "relative": relative, "most": most}


def difference(one: Path, other: Path) -> float:
    """The greatest relative difference, in the norm, between weights of the same name in two files."""
    with np.load(one) as a, np.load(other) as b:
        return max(float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name])) for name in b.files)


# ---- in a worker ----


def golden() -> Entry:
    """Whether the golden step of the tests has its recorded numbers on this device."""
    from tests.support import golden

    numbers = golden.numbers()
    wrong = {name: numbers[name] for name, right in golden.NUMBERS.items() if abs(numbers[name] - right) > 1e-3 * right}
    return {"ok": not wrong, "wrong": wrong}


def study(directory: str, model: str, strategy: str, seeds: list[int], dtype: str, epochs: int, stopped: bool) -> Entry:
    """SHA-256 and file of the weights that the run of `SEED` ends with."""
    import jax

    import plasticity_jax
    from plasticity_jax.errors import Preempted
    from plasticity_jax.storage import networks

    wanted = config(model, strategy, seeds, dtype, epochs)
    shutil.rmtree(directory, ignore_errors=True)
    if stopped:
        watcher = threading.Thread(target=_stop, args=(Path(directory),), daemon=True)
        watcher.start()
        with contextlib.suppress(Preempted):
            plasticity_jax.run(wanted, directory)
            return {"error": "the study ended before it could be stopped"}
    result = plasticity_jax.run(wanted, directory)
    (sha,) = [run["params_sha256"] for run in result["runs"] if run["seed"] == SEED]
    _, params, _ = networks.load(directory, "train", SEED)
    leaves = {str(i): np.asarray(leaf, np.float64) for i, leaf in enumerate(jax.tree.leaves(params))}
    np.savez(file := Path(directory) / "weights.npz", **leaves)
    return {"sha256": sha, "weights": str(file)}


def config(model: str, strategy: str, seeds: Sequence[int], dtype: str, epochs: int) -> ConfigDict:
    """A small network on few digits; evaluated after every epoch, which is where a stop is noticed."""
    from plasticity_jax.configs.base import base, stage

    settings = base()
    settings.update(dataset="digits", train_images=256, test_images=64, seeds=tuple(seeds), strategy=strategy)
    settings.update(control="train", diagnostics=())
    settings.model.update(name=model, depth=1, width=8, stem="cifar", dtype=dtype)
    settings.stages = ConfigDict({"train": stage(epochs=float(epochs), batch_size=64, eval_every=1)})
    return settings


def _stop(directory: Path) -> None:
    """Ask this process to stop once the study in `directory` has measured something."""
    while not any(file.stat().st_size for file in directory.rglob("metrics.jsonl")):
        time.sleep(1e-3)
    os.kill(os.getpid(), signal.SIGTERM)


WORK = (golden, study)
