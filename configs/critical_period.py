"""A critical period: training on blurred images first.  Achille et al. 2019, "Critical learning periods".

    python -m plasticity_jax.main --config=configs/critical_period.py --workdir=runs/critical_period
    python -m plasticity_jax.main --config=configs/critical_period.py:small --workdir=runs/critical_period-small
    python -m plasticity_jax.main --config=configs/critical_period.py:digits --workdir=runs/critical_period-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: `before` trains on blurred images (`blur`, a quarter of the resolution on each side) or, as a control, on the
original images (`clear`).  `tune` continues from these networks after t epochs, with their momentum, on clear images
and for the same number of epochs for every t: `blur-10`, `clear-10`, ..; and from initial weights (`fresh`).  Every
network is evaluated on clear images.  The trace of the Fisher matrix is measured over `before` and `tune`, on the
training images of the stage.

Claim: the longer the deficit lasts, the lower the final accuracy, although each network has as much time to recover as
a fresh one has in total; networks recover from a deficit of the first epochs.  The Fisher trace rises early in training
and then falls.

Choices: the blur, its length t from the start, and equally long training after it are the paper's, as we know them from
its text; the network, SGD with momentum 0.9 at 0.05, decayed to a tenth at three fifths and four fifths of `tune`, and
the values of t are ours.  So is the control `clear`: networks that were trained for equally long before, without a
deficit.  It separates the deficit from the effect in Berariu et al., a loss by pretraining itself.

Expected, in test accuracy:
    paper    a fall that steepens over the first 40 epochs of deficit and levels off about epoch 80 (from memory).
    small    the longer the deficit lasts, the lower the final accuracy: 0.58 points [0.20, 0.97] per ten epochs.  After
             40 blurred epochs networks end at 42.1 %, after 40 clear ones at 44.3 %, a difference of 2.2 points [-0.2,
             4.7]; fresh 43.9 %.  Whether the shortest deficit costs less than a point (0.4 [-1.8, 2.7], 90 %) and
             whether longer training alone does (-0.4 [-2.7, 1.9], 90 %) is inconclusive.  The Fisher trace does not
             rise: it falls by 6,500 [5,100, 7,900] from initialisation to its mean over the first third, and does not
             fall later (-140 [-420, 130]).  3 seeds (measured on CIFAR-10 re-encoded as JPEG:
             `--config.dataset=cifar10_jpeg`, analysis/results/critical_period).
    digits   no critical period: after 10 blurred epochs networks end *above* those after 10 clear ones, by 3.1 points
             [1.3, 4.9] (93.1 % and 90.0 %; fresh 93.1 %).  The Fisher trace falls from initialisation on, by 350 [310,
             390] over the first third.  Whether longer deficits cost more is inconclusive.  5 seeds (measured).

Cost, of 5 seeds (small: 3); all t of a seed are one training:
    paper    see `--dry_run`; not yet measured on a GPU.
    small    8.0 million images; 42 min on 2 CPU cores that had other work too, of which training takes 25, evaluating
             10 and measuring 4.  t of 2, 5, 10, 20 and 40; 40 epochs on clear images.
    digits   1.1 million images of 8x8; 1 min 51 s on 2 CPU cores, of which compiling takes 74 s.  t of 2, 5 and 10; 20
             epochs on clear images; the Fisher trace over `before` only, on 128 images; width 4.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, optimiser, parse_arg, stage

LENGTHS = {"": (10, 20, 40, 60, 80, 100, 140), "small": (2, 5, 10, 20, 40), "digits": (2, 5, 10), "smoke": (1, 5)}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    lengths = LENGTHS[preset]
    rule = {"learning_rate": 0.05, "weight_decay": 5e-4}
    config = base("critical_period")
    config.model.dtype = "float32"  # on every device
    config.model.stem = "cifar"
    config.diagnostics = ("weight_norm",)
    config.instruments = ("fisher",)
    config.stages.before = stage(
        epochs=lengths[-1],
        optim=optimiser("momentum", **rule),
        measure_steps=(0,),
        measure_every=5,
        branches={"blur": {"data": {"deficit": "blur"}}, "clear": {}},
    )
    config.stages.tune = stage(
        epochs=160,
        optim=optimiser("momentum", **rule, schedule="step", milestones=(0.6, 0.8)),
        reset={"optimiser": "keep"},
        measure_every=10,
        branches={
            "fresh": {"after": "init"},
            **{f"{kind}-{t}": {"after": f"before/{kind}@{t}"} for t in lengths for kind in ("blur", "clear")},
        },
    )
    presets.apply(config, preset)
    match preset:
        case "small":
            config.model.stem = "imagenet"
            presets.lengths(config, pretrain=lengths[-1], tune=40, eval_every=5)
        case "digits":
            presets.lengths(config, pretrain=lengths[-1], tune=20, eval_every=5)
            config.model.width = 4
            config.stages.before.measure_every = 2
            config.stages.tune.measure_every = 0
            config.measure_images = 128
        case "smoke":
            for record in config.stages.values():
                record.measure_every = 0
    return config
