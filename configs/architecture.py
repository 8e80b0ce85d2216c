"""Deeper and wider networks: Berariu et al. 2021, Figure 5 and appendix A.4.

    python -m plasticity_jax.main --config=configs/architecture.py --workdir=runs/architecture
    python -m plasticity_jax.main --config=configs/architecture.py:small --workdir=runs/architecture-small
    python -m plasticity_jax.main --config=configs/architecture.py:digits --workdir=runs/architecture-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: that of `configs/multistage.py` for residual networks of depths d = 1, 2, 3, 4 and widths w = 16, 32, 64, 128:
a convolution, four modules of d basic blocks with w, 2w, 4w and 8w channels, a dense head; 8d + 1 convolutions and 3
projections.  Every shape is a pack of its own, trained one after the other: `DIR/depth=2,width=64`.

Claim: larger networks generalise better, pretrained or not, but the gap remains.

Choices: the family is the paper's, and its base is d = 2, w = 64 (ResNet-18).  The grid is inferred.

Expected, in test accuracy:
    paper    the gap of Figure 1 at every depth and width; it prints no number.
    small    gaps 4.9 points [2.5, 7.3] and 1.8 [0.5, 3.2] at depth 1 and widths 4 and 8; 4.8 [0.2, 9.4] and 2.8 [0.6,
             4.9] at depth 2, 3 seeds (measured on CIFAR-10 re-encoded as JPEG: `--config.dataset=cifar10_jpeg`,
             analysis/results/architecture).  Wider networks lose less here.
    digits   fresh 81.1 and 77.9 %, pretrain+tune 78.8 and 75.4 % at widths 4 and 8; gaps 2.4 points [-0.1, 4.9] and 2.5
             [0.7, 4.3], 5 seeds (measured).

Cost, of 16 shapes of 2 branches of 5 seeds (small: 4 shapes, 3 seeds; digits: 2 shapes, 5 seeds); shapes share nothing:
    paper    36.8 million steps, 4,706 million images, those of width 128 at 4 times the price of width 64.  Not yet
             measured on a GPU.
    small    6.5 million images; measured 13 min on 2 CPU cores.  Depths 1 and 2, widths 4 and 8; 50 + 40 epochs.
    digits   1.8 million images of 8x8; measured 133 s of CPU time, compiling included.  Depth 1, widths 4 and 8; 30 +
             60 epochs.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    config = base("architecture")
    config.model.dtype = "float32"  # on every device
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350)
    config.stages.tune = stage(
        epochs=500, branches={"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}}
    )
    presets.apply(config, preset)
    depths, widths = {
        "": ((1, 2, 3, 4), (16, 32, 64, 128)),
        "small": ((1, 2), (4, 8)),
        "digits": ((1,), (4, 8)),
        "smoke": ((1,), (4, 8)),
    }[preset]
    config.grid = (("model.depth", depths), ("model.width", widths))
    return config
