"""What earlier versions wrote into config.json, as it would be written now: their results and directories stay good."""

from collections.abc import Mapping
from typing import Any

AUGMENT = {False: "none", True: "crop_flip"}  # `augment` was a truth value

ADDED: dict[str, Any] = {
    "holdout": 0.0,
    "holdout_seed": 0,
    "test_split": "test",
    "resize": 0,
    "image_size": 0,
    "instruments": [],
    "matmul_precision": "default",
    "measure_images": 2048,
}  # since then, with the values that they had

ADDED_TO_STAGES: dict[str, Any] = {
    "remedies": [],
    "measure_steps": [],
    "measure_every": 0,
    "label_smoothing": 0.0,
    "activation_noise": 0.0,
}

MODEL = {"activation": "relu", "dropout": 0.0, "injected": [], "zero_scale": False}
TASKS = {"change": "none", "epochs": 1}

# `evaluate_train` marks the first version.  What had no name then, with the values that it had.
FIRST = "evaluate_train"
ALL = 2**31 - 1  # images: of each pool as many as there are
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
    """A study as `parse.describe` writes it now; whatever is no study comes back as it is."""
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
    return {**pack, "plans": [_point(each, first) for each in plans]} if isinstance(plans, list) else pack


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
