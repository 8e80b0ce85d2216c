"""Whether learning stages are caused by the noise of SGD.  You et al. 2019, the root cause.

    python -m plasticity_jax.main --config=configs/noise.py --workdir=runs/noise
    python -m plasticity_jax.main --config=configs/noise.py:small --workdir=runs/noise-small
    python -m plasticity_jax.main --config=configs/noise.py:digits --workdir=runs/noise-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: `before` trains for a number of updates at one rate, on a fixed subset of the images.  From these networks and
their momentum three branches continue for the same number of updates:
    decay   at a tenth of the rate: the transition
    keep    at the same rate: the control without a transition
    grown   at the same rate, with ten times larger batches: less noise without a change of the rate
Each value of the axis `arm` removes a further source of noise, at equal updates and equal BatchNorm statistics (of
ghost batches as large as the batches of SGD):
    augmented    SGD with crops and flips (without flips for `digits`)
    plain        without augmentation
    large        with five times (at the scale of the paper four times) larger batches
    full         every update on all images: the gradient is a sum over micro-batches in one fixed order, so nothing is
                 random; BatchNorm's ghost batches are the same images each time
    full-group   the same with GroupNorm, which does not depend on batches (of one group at the smaller scales)
each at two learning rates.  `before` also keeps an exponential moving average of its weights, which is evaluated too.

Claim: the transitions come from the stochasticity of SGD and disappear with batch gradient descent.

Choices: the paper gives no more details; subset, rates, updates, the arms, the converse `grown` and the moving average
are ours.  If the average is as good before the decay as the network is after it, the transition is the end of
an oscillation and not the learning of something new.

Expected, the drop of the training loss soon after a transition in nats (mean over the rates, 3 seeds):
    paper    no number; the transitions disappear with batch gradient descent.
    small    plain SGD 0.25 [0.06, 0.43]; ten times larger batches instead of a decay 0.29 [0.12, 0.45]; full batches
             with BatchNorm 0.02 [-0.02, 0.05], with GroupNorm -0.02 [-0.09, 0.05].  Before the decay the moving average
             has a lower loss than the network by 0.18 [0.09, 0.28], but its accuracy is 1.2 points [1.0, 1.3] below
             that of the network after the decay (measured on CIFAR-10 re-encoded as JPEG, analysis/results/noise).
             Five times larger batches against SGD are inconclusive.
    digits   for testing only.

Cost:
    small    6.5 million images; measured 63 min on 2 slow CPU cores that trained or tested something else all the time,
             and 7 min on 12 cores of a Xeon, in two processes.
    digits   minutes; not timed.
"""

from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, optimiser, parse_arg, stage

STAGES = ("before", "after", "grown")


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    # Images, batch of SGD, updates before and after the transition, updates between evaluations.
    images, batch, before, after, every = {
        "": (5000, 125, 4000, 2000, 40),
        "small": (1000, 50, 240, 60, 10),
        "digits": (1000, 50, 150, 60, 20),
        "smoke": (1000, 50, 30, 30, 30),
    }[preset]
    rates = (0.03, 0.1)
    config = base("noise")
    config.model.dtype = "float32"  # on every device
    rule = optimiser("momentum", learning_rate=rates[-1], weight_decay=5e-4)
    going_on = {"reset": {"optimiser": "keep"}, "optim": rule, "after": "before", "steps": after}
    config.stages.before = stage(optim=rule, steps=before, ema=0.98)
    config.stages.after = stage(**going_on, branches={"keep": {}, "decay": {}})
    config.stages.grown = stage(**going_on)
    presets.apply(config, preset)
    config.stages.before.steps = before
    for name in STAGES[1:]:
        config.stages[name].steps = after
    config.train_images = images
    config.train_eval_images = images
    config.test_images = 0 if preset in ("", "digits") else 500
    config.diagnostics = ("weight_norm",)
    config.control = "keep"
    config.model.stem = "imagenet"
    if preset:
        config.model.width = 4
    # Groups of two channels with 1x1 maps would keep only signs and pass no gradient, so one group is used.
    group = "layer" if preset else "group"
    augment = "crop" if preset == "digits" else "crop_flip"
    arms = _arms(images, batch, every, larger=4 if not preset else 5, group=group, augment=augment)
    if preset == "smoke":
        arms = {name: arms[name] for name in ("plain", "full")}
    config.grid = (("arm", arms), ("rate", {str(rate): _rate(rate) for rate in rates}))
    return config


def _arms(images: int, batch: int, every: int, larger: int, group: str, augment: str) -> dict[str, dict[str, Any]]:
    """The arms of the ladder, from most to least noise."""

    def arm(size: int, norm: str = "batch", augment: str = "none") -> dict[str, Any]:
        changes: dict[str, Any] = {"model.norm": norm}
        for name in STAGES:
            taken = min(10 * size, images) if name == "grown" else size
            values = {
                "batch_size": taken,
                "micro_batch": batch if taken > batch else 0,
                "augment": augment,
                "data.shuffle": taken < images,
                "eval_every": max(1, every * taken // images),
            }
            changes |= {f"stages.{name}.{key}": value for key, value in values.items()}
        return changes

    return {
        "augmented": arm(batch, augment=augment),
        "plain": arm(batch),
        "large": arm(larger * batch),
        "full": arm(images),
        "full-group": arm(images, norm=group),
    }


def _rate(rate: float) -> dict[str, Any]:
    """One learning rate in all stages, and a tenth of it after the decay."""
    same = {f"stages.{name}.optim.learning_rate": rate for name in STAGES}
    return same | {"stages.after.branches.decay.optim.learning_rate": rate / 10}
