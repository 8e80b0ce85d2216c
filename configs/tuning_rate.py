"""A larger learning rate for tuning: Berariu et al. 2021, Figure 7, with an additional control.

    python -m plasticity_jax.main --config=configs/tuning_rate.py --workdir=runs/tuning_rate
    python -m plasticity_jax.main --config=configs/tuning_rate.py:small --workdir=runs/tuning_rate-small
    python -m plasticity_jax.main --config=configs/tuning_rate.py:digits --workdir=runs/tuning_rate-digits

Arguments, joined by commas in any order: one of `small`, `medium`, `digits` and `smoke`, and `optimiser=adam`
(default), `adamw`, `rmsprop`, `sgd`, `momentum`, `sam` or `muon`; without one of the four, the scale of the paper.

Protocol: that of `configs/multistage.py`, tuned at 1, 3, 10 and 30 times the learning rate of the pretraining, which
stays as it is.  Both branches are tuned at every rate: `fresh[rate=10x]`, `pretrain+tune[rate=10x]`.

Claim: ten times the rate in tuning reduces the gap substantially.

Choices: the factor 10 for the pretrained network is the paper's; whether its fresh network has it too is unknown to us.
Here it has, because otherwise a rate that is better for all networks would look like a remedy.  There are two gaps:
fresh at 1x against pretrain+tune at 10x (the paper's, by our reading), and at equal rates.  Factors 3 and 30 are ours,
and so are the rates of the optimisers other than Adam (`configs/base.py`).

Expected, in test accuracy:
    paper    a smaller gap at 10x; it prints no number.
    small    fresh 33.1, 40.2 and 44.1 %, pretrain+tune 30.4, 35.5 and 42.4 % at 1x, 3x and 10x: a larger rate is better
             for both, and the gap at equal rates is 2.8 [0.6, 4.9], 4.7 [2.8, 6.6] and 1.7 [-2.7, 6.1], 3 seeds
             (measured on CIFAR-10 re-encoded as JPEG: `--config.dataset=cifar10_jpeg`, analysis/results/tuning_rate).
    digits   fresh 77.9, 79.6, 82.2 and 81.9 %, pretrain+tune 75.4, 77.7, 80.9 and 81.9 % at 1x, 3x, 10x and 30x, 5
             seeds (measured).

Cost, of 4 rates of 2 branches of 5 seeds (small: 3 rates, 3 seeds; digits: 4 rates, 5 seeds); all rates of a seed share
its pretraining:
    paper    8.2 million steps, 1,045 million images; without sharing 132 million more.  Not yet measured on a GPU.
    small    4.1 million images (0.8 saved); measured 12 min on 2 CPU cores that had other work too.  Factors 1, 3 and
             10; 50 + 40 epochs.
    medium   156 million images (12.5 saved), by the dry run: 9,800 steps of batch 128 of 5 runs, 39,100 of 30.  Factors
             1, 3 and 10, all images, width 16, 5 seeds, 50 + 100 epochs; not run yet.
    digits   3.3 million images of 8x8; measured 38 s on 2 CPU cores.  All factors; 30 + 60 epochs.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import OPTIMISERS, base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.WITH_MEDIUM, optimiser=tuple(OPTIMISERS))
    optim = presets.optimiser(chosen["optimiser"], preset)
    factors = (1, 3, 10) if preset in ("small", "medium") else (1, 3, 10, 30)
    config = base("tuning_rate")
    config.model.dtype = "float32"  # on every device
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350, optim=optim)
    config.stages.tune = stage(
        epochs=500,
        optim=optim,
        branches={"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}},
    )
    rates = {f"{k}x": {"stages.tune.optim.learning_rate": k * optim.learning_rate} for k in factors}
    config.grid = (("rate", rates),)
    presets.apply(config, preset)
    return config
