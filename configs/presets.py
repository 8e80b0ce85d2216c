"""Presets: scales of the studies that are smaller than the paper's.

`small` uses real images on 2 CPU cores; `digits` scikit-learn's digits, offline and in a minute or two; `smoke` is
`small` with 30 steps per stage, to test and time a machine.  Some studies also have `medium`: all images, and a network
between those of `small` and of the paper.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import base
from plasticity_jax.configs.base import AUGMENT, step_decay
from plasticity_jax.errors import ConfigError


def small(config: ConfigDict) -> None:
    """A random 5,000 images, width 8, 3 seeds, 40 epochs of the stage `tune` and 50 of those before it."""
    config.train_images = 5000
    config.seeds = (0, 1, 2)
    config.model.width = 8
    lengths(config, pretrain=50, tune=40, eval_every=10)


def medium(config: ConfigDict) -> None:
    """All images, width 16 with the ImageNet stem, 5 seeds, 100 epochs of the stage `tune`, 50 of those before it."""
    config.seeds = (0, 1, 2, 3, 4)
    config.model.update(width=16, stem="imagenet")
    lengths(config, pretrain=50, tune=100, eval_every=10)


def digits(config: ConfigDict) -> None:
    """8x8 digits of which a fifth has wrong labels, depth 1, width 8, 5 seeds, 30 + 60 epochs."""
    config.dataset = "digits"
    config.seeds = (0, 1, 2, 3, 4)
    config.model.update(depth=1, width=8)
    for record in config.stages.values():
        record.batch_size = 64
        record.data.label_noise = 0.2
    lengths(config, pretrain=30, tune=60, eval_every=5)


def smoke(config: ConfigDict) -> None:
    """`small` with 30 steps per stage, evaluated only at the start and the end, on 1000 test images."""
    small(config)
    config.test_images = 1000
    for cut in config.stages.values():
        cut.steps = 30
        cut.eval_every = 0
        cut.eval_tail = 0


def lengths(config: ConfigDict, pretrain: float, tune: float, eval_every: int) -> None:
    """Sets the lengths of `tune` and of the stages before; in the metric's window every other epoch is evaluated."""
    for name, record in config.stages.items():
        record.epochs = tune if name == "tune" else pretrain
        record.eval_every = eval_every
        record.eval_tail = 2 if name == "tune" else 0


def learning_stages(config: ConfigDict, preset: str, batch: int = 32, small: float = 60, digits: float = 45) -> None:
    """The scale of a study of learning stages, whose stage `train` is evaluated after every epoch.

    Small batches give the noise that causes learning stages, and enough updates to pass through them, at low cost.
    """
    if not preset:
        return
    config.model.stem = "imagenet"
    config.train_eval_images = min(config.train_eval_images, 1000)
    config.stages.train.batch_size = batch
    if preset == "smoke":
        return
    if preset == "medium":
        config.stages.train.update(epochs=150.0, batch_size=128, eval_every=1, eval_tail=0)
        return
    config.stages.train.update(epochs=float(small if preset == "small" else digits), eval_every=1, eval_tail=0)
    if preset == "small":
        config.train_images = 4000
        config.test_images = 2000
    else:
        config.stages.train.augment = AUGMENT["digits"]


SCALES = ("cifar", "imagenet64", "imagenet")
THIRDS, USUAL = (1 / 3, 2 / 3), (1 / 3, 2 / 3, 8 / 9)  # of 90 epochs: decays at 30 and 60, and at 80


def imagenet(config: ConfigDict, scale: str, preset: str, milestones: tuple[float, ...] = USUAL) -> None:
    """ResNet-50 on ImageNet for 90 epochs in the stage `train`, at 64x64 (`imagenet64`) or 224x224 (`imagenet`).

    The recipe is the usual one: SGD at 0.1 with momentum 0.9 and batches of 256, weight decay 1e-4, random resized
    crops and flips.  The images take 16.4 GB at 64x64, and 262 GB at 256x256, whose 224x224 centre is the network's
    input.  `config.images=auto` stores them on the device only if they fit.

    Raises:
      ConfigError: a smaller scale was given too.
    """
    if scale == SCALES[0]:
        return
    if preset:
        raise ConfigError(f"arguments {preset} and {scale} exclude each other; give one of them")
    config.dataset = {"imagenet64": "imagenet_resized/64x64", "imagenet": "imagenet2012"}[scale]
    config.test_split = "validation"
    if scale == "imagenet":
        config.update(resize=256, image_size=224)
    config.seeds = (0, 1, 2)
    config.model.update(name="resnet50", width=64, stem="imagenet", dtype="auto")
    rule = step_decay(weight_decay=1e-4, milestones=milestones)
    config.stages.train.update(epochs=90.0, batch_size=256, augment=AUGMENT[config.dataset], optim=rule)


# Learning rates for `small`, whose pretraining has 1,000 updates where the paper's has 68,600: the smallest of 0.03,
# 0.1 and 0.3 (momentum: 0.01, 0.03 and 0.1) with which seed 100 ends it above 97 % of its 2,500 training images.
RATES = {"sgd": 0.1, "momentum": 0.03}


def named(study: str, optimiser: str) -> str:
    """`multistage` with the papers' Adam, `multistage_sgd` with another optimiser: each has claims of its own."""
    return study if optimiser == "adam" else f"{study}_{optimiser}"


def optimiser(name: str, preset: str) -> ConfigDict:
    """`base.optimiser` with a rate that lets the preset fit its training images."""
    faster = {"learning_rate": RATES[name]} if preset in ("small", "smoke") and name in RATES else {}
    return base.optimiser(name, **faster)


PRESETS = {"small": small, "medium": medium, "digits": digits, "smoke": smoke}
NAMES = ("small", "digits", "smoke")  # presets of every study
WITH_MEDIUM = tuple(PRESETS)


def apply(config: ConfigDict, preset: str) -> None:
    """Reduces a study of the paper's scale, with all its stages, to one of `PRESETS`; `""` changes nothing."""
    if preset:
        PRESETS[preset](config)
