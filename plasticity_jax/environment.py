"""What a working directory was begun with: machine, packages, data, and what `auto` meant; kept in environment.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plasticity_jax import workdir as workdirs
from plasticity_jax.datasets import Dataset
from plasticity_jax.errors import LabError, WorkdirError


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
    old = workdirs.read_json(path)
    if not isinstance(old, dict) or old.keys() != now.keys() or old["choices"].keys() != now["choices"].keys():
        raise WorkdirError(f"{path} is damaged; delete it to go on, with strategy and dtype chosen anew")
    if old["dataset"]["sha256"] != dataset.sha256:
        raise LabError(f"{directory} was begun on other images than those of {dataset.name} now; use another workdir")
    differing = [
        key
        for key in ("backend", "device_kind", "devices", "cpu_threads", "xla_flags", "packages")
        if old[key] != now[key]
    ]
    if differing:
        changes = ", ".join(f"{key} {old[key]} -> {now[key]}" for key in differing)
        print(f"note: results may differ in their last bits from an unbroken run: {changes}", flush=True)
    return old
