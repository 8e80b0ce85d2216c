"""What a working directory was begun with: machine, packages, data, and what `auto` meant; kept in environment.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plasticity_jax import models, runs
from plasticity_jax import workdir as workdirs
from plasticity_jax.datasets import Dataset
from plasticity_jax.errors import LabError, WorkdirError

LARGEST = 2**16  # classes, and pixels of a side: beyond is damage
MEND = "delete it to go on, with strategy and dtype chosen anew"


def settle(directory: Path, dataset: Dataset, choices: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What `directory` was begun with, which is now if it is new; a note says so where it goes on elsewhere.

    Args:
      directory: the working directory.
      dataset: the data of the study.
      choices: for each pack what `auto` would mean now; older choices win.

    Raises:
      LabError: the directory was begun on other images, or its environment.json is damaged.
    """
    path = directory / "environment.json"
    now = workdirs.environment()
    now["dataset"] = {
        "name": dataset.name,
        "version": dataset.version,
        "sha256": dataset.sha256,
        "classes": dataset.classes,
        "image_shape": list(dataset.train_images.shape[1:]),
    }
    now["choices"] = choices
    if not path.exists():
        workdirs.write_json(path, now)
        return now
    old = read(directory)
    if old["choices"].keys() != now["choices"].keys() or old.keys() != now.keys():
        raise _damaged(path)
    if old["dataset"]["sha256"] != dataset.sha256:
        raise LabError(
            f"{directory} was begun on other images than those of {dataset.name} now; use another workdir or, if it is "
            f"the file that is wrong, delete {path}"
        )
    differing = [
        key
        for key in ("backend", "device_kind", "devices", "cpu_threads", "xla_flags", "packages")
        if old[key] != now[key]
    ]
    if differing:
        changes = ", ".join(f"{key} {old[key]} -> {now[key]}" for key in differing)
        print(f"note: results may differ in their last bits from an unbroken run: {changes}", flush=True)
    return old


def read(directory: Path) -> dict[str, Any]:
    """The environment.json of a directory, with all in it that anybody builds upon as it should be.

    Raises:
      WorkdirError: it is missing or damaged.
    """
    path = Path(directory) / "environment.json"
    found = workdirs.read_json(path, MEND)
    if not (isinstance(found, dict) and _is_dataset(found.get("dataset")) and _are_choices(found.get("choices"))):
        raise _damaged(path)
    return found


def _is_dataset(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("sha256"), str):
        return False
    shape = value.get("image_shape")
    return isinstance(shape, list) and len(shape) == 3 and all(map(_is_count, [*shape, value.get("classes")]))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST


def _are_choices(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(each, dict) and each.get("strategy") in runs.STRATEGIES and each.get("dtype") in models.DTYPES
        for each in value.values()
    )


def _damaged(path: Path) -> WorkdirError:
    return WorkdirError(f"{path} is damaged; {MEND}")
