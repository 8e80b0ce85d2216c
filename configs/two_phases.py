"""Two phases of learning, measured: the explanation of the gap by Berariu et al. 2021 (section 3).

    python -m plasticity_jax.main --config=configs/two_phases.py --workdir=runs/two_phases
    python -m plasticity_jax.main --config=configs/two_phases.py:small --workdir=runs/two_phases-small
    python -m plasticity_jax.main --config=configs/two_phases.py:digits --workdir=runs/two_phases-digits

Arguments, joined by commas in any order: one of `small`, `digits` and `smoke`, and `optimiser=adam` (default),
`adamw`, `rmsprop`, `sgd`, `momentum`, `sam` or `muon`; without one of the three, the scale of the paper.

Protocol: that of `configs/multistage.py`; `tune` starts from fresh weights and from those of the pretraining, on the
same batches:
    fresh, fresh-10x   fresh weights, at the rate of pretraining and at ten times that
    warm, warm-10x     after the whole pretraining, at both rates
    warm-1, warm-5, .. after 1, 5, .. epochs of it
    head-reset         after all of it, with a fresh last layer
    shrink-perturb     after all of it, 0.4 times the weights and 0.1 times fresh ones (Ash & Adams 2020)
Measured at the first steps of tuning (0, 1, 2, 4, ..), every few epochs and at the end, on fixed training images: the
noise of the gradient and of the resulting update (`plasticity_jax/diagnostics/noise.py`); the trace of the Fisher
matrix; two measures of flatness that do not depend on the scale of the weights (`flatness.py`); and at the scale of
the paper the curvature (`curvature.py`), which costs ten times as much as all others together.

Claim: training first explores basins, driven by gradient noise, and then refines.  A pretrained network has less noise
when tuning begins, so it explores less and ends in a narrower minimum; ten times the rate amplifies the remaining noise
and reduces the gap.

Choices: the paper measures accuracy only, so all other measures are ours: the trace of the covariance of gradients as
noise, adaptive sharpness and the rise along filter-normalised directions as width, the times, and the branches other
than `fresh`, `warm` and `warm-10x`.  Whether noise and width predict the accuracy of a branch is tested by a rank
correlation over the branches of one seed, and whether noise acts through width by a partial one.  These are
correlations over branches that differ in more than noise, and no proof of a cause.

Expected:
    paper    no number.  By its explanation the noise at the start of tuning is lower in `warm` than in `fresh`, the
             minimum narrower, and ten times the rate increases noise and width.
    small    fresh 33.4 %, warm 30.3 %, a gap of 3.1 points [2.3, 3.9].  Before the first step the noise of the gradient
             is *higher* in `warm`, by 85,000 [74,000, 95,000] of tr(Sigma), where `fresh` has 8,200; but the steps of
             Adam are noisier in `fresh` over the first third, by 18 [16, 20], where `fresh` has 96.  `warm` ends
             narrower along random directions (0.17 nats [0.08, 0.26]); by adaptive sharpness that is inconclusive (-0.2
             nats [-1.3, 0.9]).  Ten times the rate makes updates of `warm` noisier and its minimum wider (1.3 nats
             [0.3, 2.3]), and reduces the gap by 1.9 points [0.4, 3.4].  Rank correlations with accuracy over the
             branches of a seed: noise of the steps of Adam 0.76 [0.69, 0.82], adaptive sharpness -0.71 [-0.81, -0.62],
             rise along random directions -0.96 [-1.01, -0.91].  5 seeds (measured on CIFAR-10 re-encoded as JPEG:
             `--config.dataset=cifar10_jpeg`, analysis/results/two_phases).
    digits   fresh 80.0 %, warm 75.9 %, a gap of 4.1 points [2.3, 6.0].  Before the first step the noise is *higher* in
             `warm`, by 18,000 [10,000, 25,000] of tr(Sigma); for the steps of Adam the difference is inconclusive (1.3
             [-1.2, 3.8]).  `warm` ends narrower along random directions (0.35 nats [0.12, 0.58]); by adaptive sharpness
             that is inconclusive (1.5 [-0.1, 3.0]).  Ten times the rate makes updates of `warm` noisier and its minimum
             wider (2.7 nats [1.3, 4.1]); whether it reduces the gap is inconclusive (by 1.5 points [-0.7, 3.6]).  Rank
             correlations with accuracy over the branches of a seed: noise of the steps of Adam 0.55 [0.21, 0.89],
             adaptive sharpness -0.67 [-1.04, -0.30], rise along random directions -0.91 [-1.03, -0.79].  5 seeds
             (measured).

Cost, of 8 branches (paper: 9) of 5 seeds; all branches of a seed share its pretraining:
    paper    see `--dry_run`; not yet measured on a GPU.
    small    8.8 million images, and instruments that take more time than training; 53 min on 2 CPU cores, of which
             measuring takes 29.  50 + 40 epochs.
    digits   2.3 million images of 8x8, and instruments that cost as much as 0.4 million; 1 min 35 s on 2 CPU cores,
             of which compiling takes 57 s and measuring 10 s.  30 + 40 epochs, measured on 96 images.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import OPTIMISERS, base, parse_arg, stage

LENGTHS = {"": (1, 10, 100), "small": (1, 5), "digits": (1, 5), "smoke": (1, 5)}  # of shorter pretrainings, in epochs


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.NAMES, optimiser=tuple(OPTIMISERS))
    optim = presets.optimiser(chosen["optimiser"], preset)
    faster = {"optim": {"learning_rate": 10 * optim.learning_rate}}
    config = base("two_phases")
    config.model.dtype = "float32"  # on every device
    config.instruments = ("noise", "fisher", "flatness") if preset else ("noise", "fisher", "flatness", "curvature")
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350, optim=optim)
    config.stages.tune = stage(
        epochs=500,
        optim=optim,
        measure_steps=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        measure_every=50,
        branches={
            "fresh": {"after": "init"},
            "fresh-10x": {"after": "init", **faster},
            "warm": {"after": "pretrain"},
            "warm-10x": {"after": "pretrain", **faster},
            **{f"warm-{epochs}": {"after": f"pretrain@{epochs}"} for epochs in LENGTHS[preset]},
            "head-reset": {"after": "pretrain", "reset": {"modules": ("head",)}},
            "shrink-perturb": {"after": "pretrain", "reset": {"modules": ("all",), "shrink": 0.4, "perturb": 0.1}},
        },
    )
    presets.apply(config, preset)
    match preset:
        case "small":
            config.seeds = (0, 1, 2, 3, 4)
            config.stages.tune.update(measure_steps=(0, 1, 4, 16, 64), measure_every=10)
        case "digits":
            presets.lengths(config, pretrain=30, tune=40, eval_every=5)
            config.stages.tune.update(measure_steps=(0, 1, 16, 64), measure_every=20)
            config.measure_images = 96
        case "smoke":
            config.stages.tune.update(measure_steps=(0, 8), measure_every=0)
            config.measure_images = 128
    return config
