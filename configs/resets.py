"""Which modules to reset before tuning: Berariu et al. 2021, Figures 6 and 11 and appendix A.5.

    python -m plasticity_jax.main --config=configs/resets.py --workdir=runs/resets
    python -m plasticity_jax.main --config=configs/resets.py:small --workdir=runs/resets-small
    python -m plasticity_jax.main --config=configs/resets.py:digits --workdir=runs/resets-digits

Argument: one of `small`, `medium`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: `pretrain` and `tune` as in `configs/multistage.py`; but between them some of the modules 1 (first
convolution), 2 to 5 (residual modules) and 6 (head) are reset: their weights are drawn again from the initial
distribution, and their BatchNorm statistics are initial.  The others keep weights and statistics.  `reset-6` is only
the head, `reset-3-6` the last four (Figure 11's "Reset last 4"), `reset-2-6` the last five, `reset-1-3` the first
three.

Claim: resetting the last four or five modules recovers the accuracy of a fresh network; resetting fewer does not, and
the last modules must be among them.  Keeping the first modules does not make tuning faster (Figure 11).

Choices: the modules, their reset, "last 4, or 5", and new moments of the optimiser are the paper's.  Inferred: which
other subsets it tried, here all suffixes, prefixes and single modules, and the treatment of BatchNorm statistics.

Expected, in test accuracy:
    paper    between 70 and 79 % (the axis of Figure 11); reset-3-6 and reset-2-6 level with fresh.
    small    fresh 33.1 %, pretrain+tune 30.4 %; reset-6 31.7 %, reset-4-6 33.9 %, reset-3-6 33.6 %, reset-2-6 33.2 %,
             reset-1-3 29.6 %, 3 seeds (measured on CIFAR-10 re-encoded as JPEG: `--config.dataset=cifar10_jpeg`,
             analysis/results/resets).
    digits   fresh 77.9 %, pretrain+tune 75.4 %; reset-6 77.3 %, reset-4-6 78.0 %, reset-3-6 78.6 %, reset-2-6 79.4 %,
             reset-1-3 77.5 %, 5 seeds (measured).

Cost, of 14 subsets and 2 controls, 5 seeds (small: 5 subsets, 3 seeds; digits: 5 subsets, 5 seeds); all subsets of a
seed share its pretraining:
    paper    16.0 million steps, 2,046 million images; without sharing 615 million more.  Not yet measured on a GPU.
    small    4.7 million images (1.9 saved); measured 28 min on 2 CPU cores that had other work too.  Subsets 6, 4-6,
             3-6, 2-6 and 1-3; 50 + 40 epochs.
    medium   181 million images (31.4 saved), by the dry run: 9,800 steps of batch 128 of 5 runs, 39,100 of 35.  The
             same subsets as small, all images, width 16, 5 seeds, 50 + 100 epochs; not run yet.
    digits   2.9 million images of 8x8; measured 50 s on 2 CPU cores.  The same subsets; 30 + 60 epochs.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, parse_arg, stage

MODULES = ("stem", "module2", "module3", "module4", "module5", "head")  # 1 to 6 in the paper
SUFFIXES = [(6,), (5, 6), (4, 5, 6), (3, 4, 5, 6), (2, 3, 4, 5, 6)]
PREFIXES = [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5)]
SINGLES = [(2,), (3,), (4,), (5,)]  # 1 and 6 are among the others


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.WITH_MEDIUM)
    subsets = {
        "": [*SUFFIXES, *PREFIXES, *SINGLES],
        **dict.fromkeys(("small", "medium", "digits"), [(6,), (4, 5, 6), (3, 4, 5, 6), (2, 3, 4, 5, 6), (1, 2, 3)]),
        "smoke": [(6,), (3, 4, 5, 6)],
    }[preset]
    config = base("resets")
    config.model.dtype = "float32"  # on every device
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350)
    config.stages.tune = stage(
        epochs=500,
        branches={
            "fresh": {"after": "init"},
            "pretrain+tune": {"after": "pretrain"},
            **{_name(subset): {"after": "pretrain", "reset": {"modules": _modules(subset)}} for subset in subsets},
        },
    )
    presets.apply(config, preset)
    return config


def _name(subset: Sequence[int]) -> str:
    """`reset-6`, or `reset-3-6` for 3, 4, 5 and 6."""
    return "-".join(["reset", *(str(end) for end in dict.fromkeys((subset[0], subset[-1])))])


def _modules(subset: Sequence[int]) -> tuple[str, ...]:
    return tuple(MODULES[number - 1] for number in subset)
