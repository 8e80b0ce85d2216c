"""When a regulariser matters.  Golatkar, Achille & Soatto 2019, "Time matters in regularizing deep networks".

    python -m plasticity_jax.main --config=configs/when_to_regularise.py --workdir=runs/when_to_regularise
    python -m plasticity_jax.main --config=configs/when_to_regularise.py:small --workdir=runs/when_to_regularise-small
    python -m plasticity_jax.main --config=configs/when_to_regularise.py:digits --workdir=runs/when_to_regularise-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: `first` trains with a regulariser (`on`) and without (`off`).  `rest` continues from both with their momentum,
again with and without it, for equally long:
    always, early   with it in `first`; then with it in `rest`, or without
    late, never     without it in `first`; then with it in `rest`, or without
The axis `regulariser` is weight decay of 5e-4, or augmentation: crops and flips (without flips for `digits`).

Claim: only the first part matters.  A regulariser that is removed afterwards helps as much as one that stays, and
one that is added afterwards does not help.

Choices: the four branches are the paper's.  Ours are the switch after half of all epochs, SGD with momentum 0.9 at
0.05, and the decay of the rate to a tenth at half and three quarters of `rest`.

Expected, in test accuracy:
    paper    early as always, late as never (from memory; no number is known to us).
    small    weight decay changes nothing much: early is enough, late has no effect (0.0 points [-0.8, 0.8], 90 %), but
             whether it helps at all is inconclusive (-0.4 [-1.2, 0.5]).  Augmentation helps by 9.4 points [6.4, 12.5],
             and *late* too: 7.0 [5.6, 8.4], 90 %, so it is contradicted; early alone ends 3.9 [3.1, 4.6] below always,
             and early against late is inconclusive (-1.5 [-4.7, 1.8]).  3 seeds (measured on CIFAR-10 re-encoded as
             JPEG: `--config.dataset=cifar10_jpeg`, analysis/results/when_to_regularise).
    digits   weight decay: all inconclusive (always above never by 0.5 points [-1.6, 2.5], early above late by 0.7
             [-2.2, 3.6]).  Crops shift 8x8 images by up to 4 pixels, so augmentation throughout costs 32 points [28,
             35], in the second half only 38 [32, 45], 90 %; in the first half only it helps.  5 seeds (measured).

Cost, of 2 regularisers of 4 branches of 5 seeds (small: 3); two branches of a seed share each `first`:
    paper    see `--dry_run`; not yet measured on a GPU.
    small    5.5 million images; 14 min on 2 CPU cores.  30 + 30 epochs.
    digits   1.6 million images of 8x8; 1 min 36 s on 2 CPU cores, of which compiling takes 77 s.  20 + 20 epochs.
"""

from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import AUGMENT, base, optimiser, parse_arg, stage

WITH = (("first", "on"), ("rest", "always"), ("rest", "late"))  # the branches that are regularised


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    rule = {"learning_rate": 0.05}
    config = base("when_to_regularise")
    config.model.update(stem="cifar", dtype="float32")  # on every device
    config.diagnostics = ("weight_norm",)
    config.control = "never"
    config.stages.first = stage(epochs=100, optim=optimiser("momentum", **rule), branches={"on": {}, "off": {}})
    config.stages.rest = stage(
        epochs=100,
        optim=optimiser("momentum", **rule, schedule="step", milestones=(0.5, 0.75)),
        reset={"optimiser": "keep"},
        branches={
            "never": {"after": "first/off"},
            "late": {"after": "first/off"},
            "early": {"after": "first/on"},
            "always": {"after": "first/on"},
        },
    )
    presets.apply(config, preset)
    if preset:
        config.model.stem = "imagenet"
    if preset in ("small", "digits"):
        epochs = 30 if preset == "small" else 20
        presets.lengths(config, pretrain=epochs, tune=epochs, eval_every=5)
        config.stages.rest.eval_tail = 2
    augment = "crop" if preset == "digits" else AUGMENT[config.dataset]
    kinds = {"weight_decay": _regularised("optim.weight_decay", 5e-4), "augmentation": _regularised("augment", augment)}
    config.grid = (("regulariser", kinds),)
    return config


def _regularised(key: str, value: Any) -> dict[str, Any]:
    return {f"stages.{stage}.branches.{branch}.{key}": value for stage, branch in WITH}
