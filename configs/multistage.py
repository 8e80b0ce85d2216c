"""Pretraining on a half costs test accuracy: Berariu et al. 2021, Figure 1 (and Ash & Adams 2020, Figure 1).

    python -m plasticity_jax.main --config=configs/multistage.py:digits --workdir=/tmp/multistage

Arguments, joined by commas in any order: one of `small`, `digits` and `smoke`, and `optimiser=adam` (default),
`adamw`, `rmsprop`, `sgd` or `momentum`; without one of the three, the scale of the paper.

Protocol: `pretrain` trains on a random half of the images, `tune` on all of them, once from fresh weights
(`fresh`) and once from what was pretrained (`pretrain+tune`), on the same batches.  The optimiser's moments start
from zero in both.  The metric is the mean test accuracy over the last fifth of the tuning, epochs 401-500 in the paper.

Claim: both reach 100 % train accuracy, and `pretrain+tune` generalises worse.

Expected, in test accuracy:
    paper    fresh about 78 %, 3-4 points above pretrain+tune; inferred from the axis of Figure 11 and from Ash & Adams
             (78.0 and 74.4 %, their Table 1), since the paper prints no number.  The ImageNet stem is inferred too.
    small    fresh 34.1 %, pretrain+tune 31.3 %, gap 2.7 points, 95 % interval [1.4, 4.0], 5 seeds (measured on CIFAR-10
             re-encoded as JPEG: `--config.dataset=cifar10_jpeg`, analysis/results/multistage).  A random 5,000 images,
             width 8, 50 + 100 epochs; running train accuracy at the end 97.4 and 97.8 %.
    digits   fresh 77.9 %, pretrain+tune 75.1 %, gap 2.9 points [1.3, 4.4], 8 seeds (measured).  A fifth of the labels
             is wrong; on clean labels the task is nearly solved, and the gap is 0.7 points [0.1, 1.2] (label_noise=0 in
             both stages).  With the CIFAR stem, noise and 5 seeds it is 0.9 points [-1.1, 2.9]: not told from zero.

Cost, of 2 branches of 5 seeds (digits: 8):
    paper    2.3 million steps of batch 128 in a ResNet-18 of width 64 (68,600 + 2 * 195,500 per seed), 294 million
             images; a job for a GPU, not yet measured on one.
    small    5.8 million images; measured 12 min 20 s on 2 CPU cores that were in part busy, 10 min of it training.
    digits   1.5 million images of 8x8; measured 40 s on 2 CPU cores, of which 16 s compile.
    smoke    0.06 million images; measured 39 s on 2 CPU cores, 30 of it to start and compile.
"""

from ml_collections import ConfigDict

from configs.base import OPTIMISERS, base, optimiser, parse_arg, smoke, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, ("small", "digits", "smoke"), optimiser=tuple(OPTIMISERS))
    optim = optimiser(chosen["optimiser"])
    config = base()
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350, optim=optim)
    config.stages.tune = stage(
        epochs=500,
        optim=optim,
        branches={"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}},
    )
    match preset:
        case "small" | "smoke":
            config.train_images = 5000
            config.model.width = 8
            _lengths(config, pretrain=50, tune=100, eval_every=10)
        case "digits":
            config.dataset = "digits"
            config.seeds = tuple(range(8))
            config.model.update(depth=1, width=8)
            for each in config.stages.values():
                each.batch_size = 64
                each.data.label_noise = 0.2
            _lengths(config, pretrain=30, tune=60, eval_every=5)
    return smoke(config) if preset == "smoke" else config


def _lengths(config: ConfigDict, pretrain: float, tune: float, eval_every: int) -> None:
    """Shorter stages, evaluated sparsely outside the metric's window and every other epoch inside."""
    config.stages.pretrain.epochs = pretrain
    config.stages.tune.epochs = tune
    for each in config.stages.values():
        each.eval_every = eval_every
        each.eval_tail = 2
    config.stages.pretrain.eval_tail = 0
