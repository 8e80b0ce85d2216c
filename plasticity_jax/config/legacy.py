"""Converts a config.json of an earlier version to today's format, so that old results and directories stay readable."""

from collections.abc import Mapping
from typing import Any

AUGMENT = {False: "none", True: "crop_flip"}  # `augment` was a bool

ADDED: dict[str, Any] = {
    "holdout": 0.0,
    "holdout_seed": 0,
    "test_split": "test",
    "resize": 0,
    "image_size": 0,
    "images": "device",
    "instruments": [],
    "matmul_precision": "default",
    "measure_images": 2048,
}  # fields added since, with values that keep the old behaviour

ADDED_TO_STAGES: dict[str, Any] = {
    "remedies": [],
    "measure_steps": [],
    "measure_every": 0,
    "label_smoothing": 0.0,
    "activation_noise": 0.0,
}

MODEL = {"activation": "relu", "dropout": 0.0, "injected": [], "zero_scale": False}
TASKS = {"change": "none", "epochs": 1}

# The key `evaluate_train` marks the first version.  Fields added since, with values that keep its behaviour.
FIRST = "evaluate_train"
ALL = 2**31 - 1  # images: more than any pool has
STAGE = {"micro_batch": 0, "trained": ["all"], "ema": 0.0}
PATCH = {"share": 0.0, "size": 7, "shared": 1.25, "own": 0.1, "patterns": 1, "alone": 0.2, "stretch": 1.75}
DATA = {"member": 0, "classes": [], "shuffle": True, "patch": PATCH}
DETECTOR = {
    "name": "window",
    "window": 5,
    "rtol": 0.01,
    "atol": 1e-3,
    "z": 0.0,
    "patience": 10,
    "least": 0,
    "keep": 0.125,
    "capacity": 4096,
    "significance": 0.05,
    "end_last": True,
}


def study(described: Any) -> Any:
    """The study in the format that `parse.describe` writes now; anything that is not a study is returned unchanged."""
    packs = described.get("packs") if isinstance(described, dict) else None
    if not isinstance(packs, list):
        return described
    first = FIRST in described
    top = ADDED | {key: value for key, value in described.items() if key != FIRST}
    if first:
        top |= {"train_eval_images": ALL if described[FIRST] else 0, "mean": [], "std": []}
    return {**top, "packs": [_pack(pack, first) for pack in packs]}


def _pack(pack: Any, first: bool) -> Any:
    plans = pack.get("plans") if isinstance(pack, dict) else None
    if isinstance(plans, list) and isinstance(pack.get("model"), dict):
        pack = {**pack, "model": MODEL | pack["model"]}
    return {**pack, "plans": [_point(point, first) for point in plans]} if isinstance(plans, list) else pack


def _point(point: Any, first: bool) -> Any:
    """One point of the grid: its hyper-parameters and its plan, a list of stages."""
    if not isinstance(point, list) or len(point) != 2 or not isinstance(point[1], list):
        return point
    return [point[0], [_stage(stage, first) if isinstance(stage, dict) else stage for stage in point[1]]]


def _stage(stage: Mapping[str, Any], first: bool) -> dict[str, Any]:
    old = stage.get("augment")
    augment = {"augment": AUGMENT[old]} if isinstance(old, bool) else {}
    now: dict[str, Any] = {**ADDED_TO_STAGES, **stage, **augment}
    if isinstance(now.get("optim"), dict):
        now["optim"] = {"rho": 0.0, "decayed": "all", "reference_batch": 0, **now["optim"]}
    if isinstance(now.get("data"), dict):
        now["data"] = {"tasks": TASKS, "deficit": "none", **now["data"]}
    if first:
        now = {**STAGE, **now}
        for key, added in (("data", DATA), ("optim", {"detector": DETECTOR})):
            if isinstance(now.get(key), dict):
                now[key] = {**added, **now[key]}
    return now
