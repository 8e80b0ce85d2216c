"""Gradual transition from half to all of the data: Berariu et al. 2021, Figure 3 and appendix A.2.

    python -m plasticity_jax.main --config=configs/blending.py --workdir=runs/blending
    python -m plasticity_jax.main --config=configs/blending.py:small --workdir=runs/blending-small
    python -m plasticity_jax.main --config=configs/blending.py:digits --workdir=runs/blending-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: no pretraining, but 500 epochs in which each example of step n of N is drawn from all images with probability
p(n) = 1 - gamma^(50 n/N), else from a random half of them (`blend`, gamma 0.1, 0.2, .. 0.9).  So every ten epochs the
biased share shrinks by the factor gamma: it is a half after 3 epochs at gamma 0.1 and after 66 at gamma 0.9.  `fresh`
walks through all images epoch by epoch; `replacement` draws from all of them independently, as blending does.

Claim: a bias that decays slowly, over a small part of the training, is enough for a gap.

Choices: p(n) and the range of gamma are the paper's.  The steps of gamma, and drawing with replacement, are inferred;
the control `replacement` is ours; compare with it, so that the effect of independent draws is not mistaken for a gap.

Expected, in test accuracy:
    paper    lower the larger gamma is; it prints no number.
    small    fresh 33.1 %, replacement 33.1 %; the accuracy falls by 2.3 points [1.5, 3.0] per unit of gamma, and gamma
             0.9 is 1.6 points [-1.6, 4.9] below fresh, 3 seeds (measured on CIFAR-10 re-encoded as JPEG:
             `--config.dataset=cifar10_jpeg`, analysis/results/blending).
    digits   fresh 77.9 %, replacement 78.9 %, gammas 0.1, 0.5 and 0.9: 78.3, 78.9 and 77.7 %, 5 seeds (measured):
             differences are within the noise.

Cost, of 9 gammas and 2 controls, 5 seeds (small: 3 gammas, 3 seeds; digits: 3 gammas, 5 seeds); nothing is shared:
    paper    10.8 million steps, 1,376 million images.  Not yet measured on a GPU.
    small    3.1 million images; measured 11 min on 2 CPU cores that had other work too.  Gammas 0.1, 0.5, 0.9; 40
             epochs.
    digits   2.0 million images of 8x8; measured 67 s of CPU time, compiling included.  Gammas 0.1, 0.5, 0.9; 60 epochs.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    gammas = {
        "": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "small": (0.1, 0.5, 0.9),
        "digits": (0.1, 0.5, 0.9),
        "smoke": (0.5,),
    }[preset]
    config = base("blending")
    config.model.dtype = "float32"  # on every device
    config.stages.tune = stage(
        epochs=500,
        branches={
            "fresh": {},
            "replacement": {"data": {"replacement": True}},
            "blend": {"data": {"recipe": "blend", "fraction": 0.5, "gamma": 0.5}},
        },
    )
    config.grid = (("stages.tune.branches.blend.data.gamma", gammas),)
    presets.apply(config, preset)
    return config
