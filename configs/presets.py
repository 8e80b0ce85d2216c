"""The scales that every study is offered at, besides the paper's.

`small` is real images on 2 CPU cores; `digits` is scikit-learn's digits, offline and in a minute or two; `smoke` is
`small` cut to 30 steps a stage, to try a machine and to time it.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs.base import AUGMENT


def small(config: ConfigDict) -> None:
    """A random 5,000 images, width 8, 3 seeds, 40 epochs of the stage `tune` and 50 of those before it."""
    config.train_images = 5000
    config.seeds = (0, 1, 2)
    config.model.width = 8
    lengths(config, pretrain=50, tune=40, eval_every=10)


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
    """`small` with 30 steps a stage, evaluated only at the start and the end, on 1000 test images."""
    small(config)
    config.test_images = 1000
    for cut in config.stages.values():
        cut.steps = 30
        cut.eval_every = 0
        cut.eval_tail = 0


def lengths(config: ConfigDict, pretrain: float, tune: float, eval_every: int) -> None:
    """Set the lengths of `tune` and of the stages before it; every other epoch is evaluated in the metric's window."""
    for name, record in config.stages.items():
        record.epochs = tune if name == "tune" else pretrain
        record.eval_every = eval_every
        record.eval_tail = 2 if name == "tune" else 0


def learning_stages(config: ConfigDict, preset: str, batch: int = 32, small: float = 60, digits: float = 45) -> None:
    """The scale of a study of learning stages, whose stage `train` is evaluated after every epoch.

    Small batches bring the noise that makes learning stages, and the updates to get through them, at little cost.
    """
    if not preset:
        return
    config.model.stem = "imagenet"
    config.train_eval_images = min(config.train_eval_images, 1000)
    config.stages.train.batch_size = batch
    if preset == "smoke":
        return
    config.stages.train.update(epochs=float(small if preset == "small" else digits), eval_every=1, eval_tail=0)
    if preset == "small":
        config.train_images = 4000
        config.test_images = 2000
    else:
        config.stages.train.augment = AUGMENT["digits"]


PRESETS = {"small": small, "digits": digits, "smoke": smoke}
NAMES = tuple(PRESETS)


def apply(config: ConfigDict, preset: str) -> None:
    """Cut a study of the paper's scale, all its stages included, down to one of `NAMES`; `""` leaves it alone."""
    if preset:
        PRESETS[preset](config)
