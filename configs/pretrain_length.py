"""How much pretraining it takes to lose: Berariu et al. 2021, Figure 2 (and, by our reading, Figures 8-10)."""

from ml_collections import ConfigDict

from configs import presets
from configs.base import OPTIMISERS, base, optimiser, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.NAMES, optimiser=tuple(OPTIMISERS))
    optim = optimiser(chosen["optimiser"])
    lengths = {
        "": (1, 2, 3, 5, 10, 20, 35, 50, 100, 200, 350),
        "small": (1, 2, 5, 10, 20, 50),
        "digits": (1, 3, 10, 30),
        "smoke": (1, 5),
    }[preset]
    config = base("pretrain_length")
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=lengths[-1], optim=optim)
    warm = {f"pretrain-{epochs}": {"after": f"pretrain@{epochs}"} for epochs in lengths}
    config.stages.tune = stage(epochs=500, optim=optim, branches={"fresh": {"after": "init"}, **warm})
    presets.apply(config, preset)
    return config
