"""Gradient descent in a tiny subspace, for fresh and warm starts.  Gur-Ari, Roberts & Dyer 2018.

    python -m plasticity_jax.main --config=configs/subspace.py --workdir=runs/subspace
    python -m plasticity_jax.main --config=configs/subspace.py:small --workdir=runs/subspace-small
    python -m plasticity_jax.main --config=configs/subspace.py:digits --workdir=runs/subspace-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: that of `configs/multistage.py` with SGD.  Measured at the first steps of tuning and every few epochs: the
share of the gradient in the eigenspace of the ten largest eigenvalues of the Hessian, and the overlap of this
eigenspace with that of the previous and of the first measurement.

Claim: after a short time the gradient lies mostly in an eigenspace with as many dimensions as classes, and this space
changes little afterwards.

Choices: ten dimensions for ten classes and plain SGD are the paper's; network, rate and times are ours, and so is the
warm start: by the explanation of Berariu et al. it should be past this initial phase.

Expected:
    paper    most of the gradient in the eigenspace soon after the start (its abstract; no number is known to us).
    small    less than half of the gradient lies in that space over the first third of tuning: a share of 0.32 [0.28,
             0.37] in fresh networks and 0.30 [0.25, 0.36] in pretrained ones.  The space of pretrained networks does
             not stay: at the end 0.21 [0.15, 0.27] of it overlaps with that of 400 updates before; of fresh ones that
             is inconclusive (0.48 [0.34, 0.62]).  Before the first step *less* of the gradient of a pretrained network
             lies in it (0.37 less [0.08, 0.66]).  3 seeds (measured on CIFAR-10 re-encoded as JPEG:
             `--config.dataset=cifar10_jpeg`, analysis/results/subspace).
    digits   most of the gradient lies in that space over the first third of tuning: a share of 0.60 [0.54, 0.66] in
             fresh networks and 0.77 [0.69, 0.86] in pretrained ones, and the space stays (0.74 [0.66, 0.83] and 0.73
             [0.63, 0.82] of it from one measurement to the next).  Before the first step, more of the gradient of a
             pretrained network lies in it (0.26 more [0.05, 0.46]).  5 seeds (measured).

Cost, of 2 branches of 5 seeds (small: 3):
    paper    see `--dry_run`; not yet measured on a GPU.
    small    1.6 million images; 11 min on 2 CPU cores that had some other work, of which measuring takes 6.  50 + 40
             epochs, measured on 512 images.
    digits   0.6 million images of 8x8, and instruments that cost as much as 0.8 million; 46 s on 2 CPU cores.  30 + 40
             epochs, measured on 128 images; width 4.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, optimiser, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    optim = optimiser("sgd", learning_rate=0.05)
    config = base("subspace")
    config.model.dtype = "float32"  # on every device
    config.diagnostics = ("weight_norm",)
    config.instruments = ("subspace",)
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350, optim=optim)
    config.stages.tune = stage(
        epochs=500,
        optim=optim,
        measure_steps=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        measure_every=50,
        branches={"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}},
    )
    presets.apply(config, preset)
    match preset:
        case "small":
            config.stages.tune.update(measure_steps=(0, 1, 4, 16, 64, 256), measure_every=10)
            config.measure_images = 512
        case "digits":
            presets.lengths(config, pretrain=30, tune=40, eval_every=5)
            config.model.width = 4
            config.stages.tune.update(measure_steps=(0, 4, 16, 64), measure_every=10)
            config.measure_images = 128
        case "smoke":
            config.stages.tune.update(measure_steps=(0, 8), measure_every=0)
            config.measure_images = 128
    return config
