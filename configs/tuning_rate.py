"""A larger learning rate for tuning: Berariu et al. 2021, Figure 7, with the control that it leaves out."""

from ml_collections import ConfigDict

from configs import presets
from configs.base import OPTIMISERS, base, optimiser, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.NAMES, optimiser=tuple(OPTIMISERS))
    optim = optimiser(chosen["optimiser"])
    factors = (1, 3, 10) if preset == "small" else (1, 3, 10, 30)
    config = base("tuning_rate")
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
