"""How much pretraining causes a gap: Berariu et al. 2021, Figure 2 (and, by our reading, Figures 8-10).

    python -m plasticity_jax.main --config=configs/pretrain_length.py --workdir=runs/pretrain_length
    python -m plasticity_jax.main --config=configs/pretrain_length.py:small --workdir=runs/pretrain_length-small
    python -m plasticity_jax.main --config=configs/pretrain_length.py:digits --workdir=runs/pretrain_length-digits

Arguments, joined by commas in any order: one of `small`, `digits` and `smoke`, and `optimiser=adam` (default),
`adamw`, `rmsprop`, `sgd`, `momentum`, `sam` or `muon`; without one of the three, the scale of the paper.
With another optimiser than Adam the study has another name: `pretrain_length_sgd`.

Protocol: one pretraining on a random half of the images, 350 epochs long.  `tune` trains on all of them for 500 epochs,
from the pretrained network after 1, 2, 3, 5, 10, 20, 35, 50, 100, 200 and 350 epochs (`pretrain-1` .. `pretrain-350`)
and from fresh weights (`fresh`), on the same batches.  The optimiser's moments start from zero.

Claim: the gap appears after very few epochs of pretraining, 5 to 10 with Adam, long before the half is fitted; stopping
the pretraining early does not remove it, with none of the four optimisers.

Choices: the two axes, Adam at a constant 1e-3 and the metric are the paper's.  Which lengths it tried is inferred; so
are the rates of the other optimisers (`configs/base.py`; for `small` `configs/presets.py`), and that Figures 8-10 are
this study with RMSprop, SGD and SGD with momentum.

Expected, in test accuracy over pretraining epochs:
    paper    a fall within the first ten epochs, then 3-4 points below fresh (the height is inferred, as in multistage).
    small    fresh 33.1 %; after 1, 2, 5, 10, 20 and 50 epochs of pretraining 33.7, 33.5, 31.8, 30.4, 30.3 and 30.4 %.
             The gap after 10 epochs is 2.75 points [2.56, 2.94], 3 seeds (measured on CIFAR-10 re-encoded as JPEG:
             `--config.dataset=cifar10_jpeg`, analysis/results/pretrain_length).
    digits   fresh 77.9 %; after 1, 3, 10 and 30 epochs 77.0, 77.0, 75.4 and 75.4 %; the gap after 10 is 2.5 points
             [0.8, 4.3], 5 seeds (measured).

Cost, of 11 lengths and fresh, 5 seeds (small: 6 lengths, 3 seeds; digits: 4 lengths, 5 seeds); all lengths of a seed
are one pretraining:
    paper    12.1 million steps, 1,545 million images; pretraining each length by itself would take 53 million more.
             Not yet measured on a GPU.
    small    4.7 million images (0.3 saved); measured 15 min on 2 CPU cores that had other work too.  Lengths 1, 2, 5,
             10, 20, 50; 40 epochs of tuning.
    digits   2.1 million images of 8x8; measured 92 s of CPU time, compiling included.  Lengths 1, 3, 10, 30; 60 epochs
             of tuning.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import OPTIMISERS, base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.NAMES, optimiser=tuple(OPTIMISERS))
    optim = presets.optimiser(chosen["optimiser"], preset)
    lengths = {
        "": (1, 2, 3, 5, 10, 20, 35, 50, 100, 200, 350),
        "small": (1, 2, 5, 10, 20, 50),
        "digits": (1, 3, 10, 30),
        "smoke": (1, 5),
    }[preset]
    config = base(presets.named("pretrain_length", chosen["optimiser"]))
    config.model.dtype = "float32"  # on every device
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=lengths[-1], optim=optim)
    warm = {f"pretrain-{epochs}": {"after": f"pretrain@{epochs}"} for epochs in lengths}
    config.stages.tune = stage(epochs=500, optim=optim, branches={"fresh": {"after": "init"}, **warm})
    presets.apply(config, preset)
    return config
