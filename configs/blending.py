"""A slow slide from a half to the whole of the data: Berariu et al. 2021, Figure 3 and appendix A.2."""

from ml_collections import ConfigDict

from configs import presets
from configs.base import base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    gammas = {
        "": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "small": (0.1, 0.5, 0.9),
        "digits": (0.1, 0.5, 0.9),
        "smoke": (0.5,),
    }[preset]
    config = base("blending")
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
