"""Remedies and their settings for `configs/remedies.py`: the config changes of each branch."""

from collections.abc import Sequence
from typing import Any

from plasticity_jax.configs.base import AUGMENT
from plasticity_jax.errors import ConfigError

MODULES = {"resnet": ("module3", "module4", "module5", "head"), "mlp": ("layer2", "head")}  # the last of a network
INJECTION = "plasticity_injection"

Ways = dict[str, dict[str, Any]]  # remedy -> changes of its branch; a list has one value per setting


def at_switch(rate: float, model: str) -> Ways:
    """Remedies that act at the start of a stage or task; `rate` is the learning rate of the baseline."""
    return {
        "larger_rate": {"optim.learning_rate": [3 * rate, 10 * rate, 30 * rate]},
        "rewarmed_rate": {
            "optim.learning_rate": [3 * rate, 10 * rate, 30 * rate],
            "optim.schedule": "cosine",
            "optim.milestones": (),
            "optim.warmup": 0.1,
            "optim.decay": 0.01,
        },
        "head_reset": {"reset.modules": ("head",)},
        "last_reset": {"reset.modules": MODULES[model]},
        # In a stream it acts at every task, which after a few tasks erases everything.
        "shrink_perturb": {
            "reset.modules": ("all",),
            "reset.shrink": [0.6, 0.8, 0.95] if model == "mlp" else [0.2, 0.4, 0.6],
            "reset.perturb": 0.1,
        },
    }


def between_stages(only: Sequence[str] = ()) -> Ways:
    """Remedies that act at the start of a stage, and therefore not in streams of tasks.

    Plasticity injection makes every network of the study larger and slower, so it is included only if `only` names it.
    """
    return {
        "fire": {"remedies.fire": {}},
        "dash": {"remedies.dash.least": [0.1, 0.3, 0.5]},
        "distillation": {"reset.modules": ("all",), "remedies.distillation.strength": [0.3, 1.0, 3.0]},
        **({INJECTION: {f"remedies.{INJECTION}": {}}} if INJECTION in only else {}),
    }


def throughout(every: int, dataset: str, optim: str) -> Ways:
    """Remedies that act throughout training; periodic ones every `every` updates, some only with Adam."""
    augment = AUGMENT.get(dataset, "crop_flip")
    adam: Ways = {
        "decoupled_decay": {"optim.name": "adamw", "optim.weight_decay": [1e-3, 1e-2, 1e-1]},
        "muon": {"optim.name": "muon", "optim.learning_rate": [1e-3, 5e-3, 2e-2]},
    }
    return {
        "l2": {"optim.weight_decay": [1e-5, 1e-4, 1e-3]},
        "l2_init": {"remedies.l2_init.strength": [1e-4, 1e-3, 1e-2]},
        "spectral": {"remedies.spectral.strength": [1e-4, 1e-3, 1e-2]},
        "parseval": {"remedies.parseval.strength": [1e-4, 1e-3, 1e-2]},
        "feature_norm": {"remedies.feature_norm.strength": [1e-5, 1e-4, 1e-3]},
        "infer": {"remedies.infer.strength": [1e-3, 1e-2, 1e-1]},
        "churn": {"remedies.churn.strength": [0.01, 0.1, 1.0]},
        "weight_clipping": {"remedies.weight_clipping.bound": [1.0, 2.0, 4.0]},
        "soft_weight_rescaling": {"remedies.soft_weight_rescaling.rate": [1e-4, 1e-3, 1e-2]},
        "redo": {"remedies.redo.threshold": [0.01, 0.1, 0.3], "remedies.redo.every": every},
        "continual_backprop": {"remedies.continual_backprop.rate": [1e-5, 1e-4, 1e-3]},
        "self_normalised_resets": {"remedies.self_normalised_resets.rejection": [1e-3, 1e-2, 1e-1]},
        "shrink_and_perturb": {
            "remedies.shrink_and_perturb.shrink": [0.6, 0.8, 0.95],
            "remedies.shrink_and_perturb.every": every,
        },
        "hare_tortoise": {
            "remedies.hare_tortoise.decay": [0.99, 0.999, 0.9999],
            "remedies.hare_tortoise.every": every,
        },
        "selective_reinitialisation": {
            "remedies.selective_reinitialisation.share": [1e-4, 1e-3, 1e-2],
            "remedies.selective_reinitialisation.every": every,
        },
        "sam": {"optim.rho": [0.02, 0.05, 0.1]},
        **(adam if optim == "adam" else {}),
        **({} if augment == "none" else {"augmentation": {"augment": augment}}),
    }


def of_streams() -> Ways:
    """The remedy for streams only: elsewhere every branch resets the optimiser's moments."""
    return {"optimiser_reset": {"reset.optimiser": "all"}}


def names() -> tuple[str, ...]:
    """All remedies of any protocol."""
    every = throughout(100, "cifar10", "adam") | at_switch(1e-3, "mlp") | between_stages((INJECTION,)) | of_streams()
    return tuple(every)


def some(ways: Ways, only: Sequence[str]) -> Ways:
    """The remedies in `only`, or all if it is empty."""
    return {way: changes for way, changes in ways.items() if not only or way in only}


def check(ways: Ways, only: Sequence[str], protocol: str) -> None:
    """Raises a ConfigError if `only` names a remedy that the protocol does not have."""
    if absent := [way for way in only if way not in ways]:
        raise ConfigError(f"argument remedies={'+'.join(only)}: protocol={protocol} has no {', '.join(absent)} here")
