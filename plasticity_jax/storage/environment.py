"""environment.json: the machine, packages, data and resolved `auto` choices with which a directory was begun."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plasticity_jax import models
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.errors import LabError, WorkdirError
from plasticity_jax.parallel import run_axis
from plasticity_jax.storage import conditions, workdir

PLACES = ("device", "host", "disk")  # where images can be stored during training
LARGEST = 2**16  # number of classes, and pixels per side; larger values count as damage
MEND = "delete it to continue, with strategy and dtype chosen again"


NEW = ("random", "x64", "matmul_precision", "compiler", "flags", "own")  # not recorded by earlier versions
# Differences that change the meaning of results are refused; those that may change last bits are noted.
REFUSED = {"random": "random numbers", "x64": "64-bit types", "matmul_precision": "precision of matrix products"}
NOTED = (
    *("commit", "dirty", "python", "packages", "backend", "device_kind", "devices", "cpu_threads", "xla_flags"),
    *("flags", "compiler"),
)


def settle(
    directory: Path, dataset: Dataset, choices: Mapping[str, Mapping[str, str]], custom: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the environment with which `directory` was begun, writing it if new; prints a note about differences.

    Args:
      directory: the working directory.
      dataset: the data of the study.
      choices: resolved `auto` settings by pack; recorded ones take precedence.
      own: fingerprints of custom code by its role (`model`, `reset NAME`, `diagnostic NAME`).

    Raises:
      LabError: the directory was begun with other images, other custom code or settings that change results, or its
        environment.json is damaged.
    """
    path = directory / "environment.json"
    now = workdir.environment() | conditions.recorded()
    now["dataset"] = {
        "name": dataset.name,
        "version": dataset.version,
        "sha256": dataset.sha256,
        "classes": dataset.classes,
        "image_shape": list(dataset.shape),
    }
    now |= {"choices": choices, "own": dict(custom)}
    if not path.exists():
        workdir.write_json(path, now)
        return now
    old = read(directory)
    if old["choices"].keys() != now["choices"].keys() or {*old, *NEW} != now.keys():
        raise _damaged(path)
    if old["dataset"]["sha256"] != dataset.sha256:
        raise LabError(
            f"{directory} was begun with other images than {dataset.name} has now; use another workdir, or, if this "
            f"file is wrong, delete {path}"
        )
    other = [f"{what} ({', '.join(changes)})" for key, what in REFUSED.items() if (changes := _changes(key, old, now))]
    given = old.get("own", custom)
    if names := [name for name in {**given, **custom} if given.get(name) != custom.get(name)]:
        other.append(f"custom code ({', '.join(names)})")
    if other:
        raise LabError(
            f"{directory} was begun with other {' and other '.join(other)}; use the original ones, use another "
            f"workdir, or delete {path} to continue from its checkpoints with the current ones"
        )
    noted = [change for key in NOTED for change in _changes(key, old, now)]
    if noted:
        print(f"note: results may differ in their last bits from an unbroken run: {', '.join(noted)}", flush=True)
    if missing := [key for key in NEW if key not in old]:
        print(f"note: an earlier version began {directory} without recording {', '.join(missing)}", flush=True)
    return old


def _changes(key: str, old: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key old -> new` for each difference, with dictionaries compared key by key; none if `key` was not recorded."""
    before, after = old.get(key, now[key]), now[key]
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            f"{name} {_shown(before.get(name))} -> {_shown(after.get(name))}"
            for name in {**before, **after}
            if before.get(name) != after.get(name)
        ]
    return [f"{key} {_shown(before)} -> {_shown(after)}"] if before != after else []


def _shown(value: Any) -> str:
    return "(none)" if value in (None, "") else str(value)


def read(directory: Path) -> dict[str, Any]:
    """The environment.json of a directory, after a check of the values that are used.

    Raises:
      WorkdirError: it is missing or damaged.
    """
    path = Path(directory) / "environment.json"
    facts = workdir.read_json(path, MEND)
    whole = isinstance(facts, dict) and _is_dataset(facts.get("dataset")) and _are_choices(facts.get("choices"))
    if not whole or not isinstance(facts.get("own", {}), dict):
        raise _damaged(path)
    return facts


def _is_dataset(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("sha256"), str):
        return False
    shape = value.get("image_shape")
    return isinstance(shape, list) and len(shape) == 3 and all(map(_is_count, [*shape, value.get("classes")]))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST


def _are_choices(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(choice, dict)
        and choice.get("strategy") in run_axis.STRATEGIES
        and choice.get("dtype") in models.DTYPES
        and choice.get("images", "device") in PLACES  # not recorded by earlier versions
        for choice in value.values()
    )


def _damaged(path: Path) -> WorkdirError:
    return WorkdirError(f"{path} is damaged; {MEND}")
