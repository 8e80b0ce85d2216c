"""Deeper and wider networks: Berariu et al. 2021, Figure 5 and appendix A.4."""

from ml_collections import ConfigDict

from configs import presets
from configs.base import base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    config = base("architecture")
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
