"""Data that arrive in several parts: Berariu et al. 2021, Figure 4, left and right, and appendix A.3."""

from typing import Any

from ml_collections import ConfigDict

from configs import presets
from configs.base import base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    # Chains of training: in how many parts the data come, and the share of them that comes uniformly.
    chains = {
        "": [(n, 1.0) for n in (2, 3, 5, 10)] + [(n, r) for n in (2, 5, 10) for r in (0.75, 0.5, 0.25, 0.0)],
        "small": [(2, 1.0), (5, 1.0), (5, 0.5), (5, 0.0)],
        "digits": [(2, 1.0), (5, 1.0), (5, 0.5), (5, 0.0)],
        "smoke": [(2, 1.0), (3, 0.0)],
    }[preset]
    config = base("splits")
    for part in range(1, max(splits for splits, _ in chains)):
        longer = [(splits, uniform) for splits, uniform in chains if splits > part]
        config.stages[f"part{part}"] = stage(
            epochs=350, branches={_name(*chain): _branch(*chain, part) for chain in longer}
        )
    last = {_name(splits, uniform): _branch(splits, uniform, splits) for splits, uniform in chains}
    config.stages.tune = stage(epochs=500, branches={"fresh": {}, **last})
    presets.apply(config, preset)
    if preset == "small":
        presets.lengths(config, pretrain=30, tune=40, eval_every=10)
    return config


def _name(splits: int, uniform: float) -> str:
    return f"splits-{splits}" if uniform == 1 else f"splits-{splits}-uniform-{round(100 * uniform)}"


def _branch(splits: int, uniform: float, part: int) -> dict[str, Any]:
    """The part D_i of appendix A.3, after the part before it."""
    data = {"recipe": "split", "splits": splits, "part": part, "uniform": uniform}
    return {"after": f"part{part - 1}/{_name(splits, uniform)}" if part > 1 else "init", "data": data}
