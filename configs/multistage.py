"""Pretraining on half of the data lowers test accuracy: Berariu et al. 2021, Figure 1 (Ash & Adams 2020, Figure 1).

    python -m plasticity_jax.main --config=configs/multistage.py --workdir=runs/multistage
    python -m plasticity_jax.main --config=configs/multistage.py:small --workdir=runs/multistage-small
    python -m plasticity_jax.main --config=configs/multistage.py:digits --workdir=runs/multistage-digits

Arguments, joined by commas in any order: one of `small`, `medium`, `digits` and `smoke`, and `optimiser=adam`
(default), `adamw`, `rmsprop`, `sgd`, `momentum`, `sam` or `muon`; without one of the four, the scale of the paper.
With another optimiser than Adam the study has another name: `multistage_sgd`.

Protocol: `pretrain` trains on a random half of the images, `tune` on all of them, once from fresh weights
(`fresh`) and once from the pretrained ones (`pretrain+tune`), on the same batches.  The optimiser's moments start
from zero in both.  The metric is the mean test accuracy over the last fifth of the tuning, epochs 401-500 in the paper.

Claim: both reach 100 % train accuracy, and `pretrain+tune` generalises worse; also with RMSprop, SGD, and SGD with
momentum.

Choices: the half, 350 and 500 epochs, batch 128, Adam at a constant 1e-3, the metric, and moments that start from zero
are the paper's.  Inferred: the stem, no augmentation, no weight decay, the same 500 epochs for `fresh`, and the rates
of the other optimisers (`configs/base.py`; for `small` `configs/presets.py`).

Expected, in test accuracy:
    paper    fresh about 78 %, 3-4 points above pretrain+tune; inferred from the axis of Figure 11 and from Ash & Adams
             (78.0 and 74.4 %, their Table 1), since the paper prints no number.  The ImageNet stem is inferred too.
    small    fresh 34.0 %, pretrain+tune 31.4 %, gap 2.6 points, 95 % interval [2.0, 3.3], 5 seeds (measured on CIFAR-10
             re-encoded as JPEG: `--config.dataset=cifar10_jpeg`, analysis/results/multistage).  A random 5,000 images,
             width 8, 50 + 100 epochs; running train accuracy at the end 97.2 % of both.
             With SGD (`optimiser=sgd`) fresh 40.2 %, pretrain+tune 38.5 %, gap 1.7 points [0.6, 2.7], 5 seeds; running
             train accuracy 99.4 % and 100.0 % (analysis/results/multistage_sgd).  With momentum fresh 40.7 %,
             pretrain+tune 38.8 %, gap 2.0 points [0.2, 3.7], 5 seeds (analysis/results/multistage_momentum).  With
             RMSprop fresh 37.0 %, pretrain+tune 35.4 %, gap 1.6 points [0.6, 2.5], 5 seeds; running train accuracy
             96.9 % and 98.0 % (analysis/results/multistage_rmsprop).
    medium   fresh 66.2 %, pretrain+tune 62.7 %, gap 3.5 points [1.9, 5.2], 2 seeds (`--config.seeds=0,1`, measured on
             CIFAR-10 re-encoded as JPEG, analysis/results_medium/multistage); running train accuracy 98.4 and 98.5 %.
    digits   fresh 78.1 %, pretrain+tune 75.2 %, gap 2.9 points [1.2, 4.6], 8 seeds (measured).  A fifth of the labels
             is wrong; on clean labels the task is nearly solved, and the gap is 0.7 points [0.1, 1.2] (label_noise=0 in
             both stages).  With the CIFAR stem, noise and 5 seeds it is 0.9 points [-1.1, 2.9]: inconclusive.

Cost, of 2 branches of 5 seeds (digits: 8):
    paper    2.3 million steps of batch 128 in a ResNet-18 of width 64 (68,600 + 2 * 195,500 per seed), 294 million
             images; a job for a GPU, not yet measured on one.
    small    5.8 million images; measured 6 min 45 s on 2 CPU cores: 5 min 11 s training, 51 s evaluating, and 26 s
             compiling, which only the first start does (5 min 55 s without).
    medium   56.3 million images, by the dry run: 9,800 steps of batch 128 of 5 runs, 39,100 of 10, in a ResNet-18 of
             width 16 (703,386 parameters).  All images, 50 + 100 epochs; measured 103 min for 2 seeds on 2 slow CPU
             cores that had other work part of the time; without it 41 min a seed.
    digits   1.5 million images of 8x8; measured 11 s on 2 CPU cores, and 16 s more for the first start to compile.
    smoke    0.06 million images; measured 16 s on 2 CPU cores.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import OPTIMISERS, base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.WITH_MEDIUM, optimiser=tuple(OPTIMISERS))
    optim = presets.optimiser(chosen["optimiser"], preset)
    config = base(presets.named("multistage", chosen["optimiser"]))
    config.model.dtype = "float32"  # on every device
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350, optim=optim)
    config.stages.tune = stage(
        epochs=500,
        optim=optim,
        branches={"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}},
    )
    presets.apply(config, preset)
    if preset == "small":
        config.seeds = (0, 1, 2, 3, 4)
        config.stages.tune.epochs = 100
    elif preset == "digits":
        config.seeds = tuple(range(8))
    return config
