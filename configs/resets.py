"""Which modules to start anew before tuning: Berariu et al. 2021, Figures 6 and 11 and appendix A.5."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from configs import presets
from configs.base import base, parse_arg, stage

MODULES = ("stem", "module2", "module3", "module4", "module5", "head")  # 1 to 6 in the paper
SUFFIXES = [(6,), (5, 6), (4, 5, 6), (3, 4, 5, 6), (2, 3, 4, 5, 6)]
PREFIXES = [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5)]
SINGLES = [(2,), (3,), (4,), (5,)]  # 1 and 6 are among the others


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    subsets = {
        "": [*SUFFIXES, *PREFIXES, *SINGLES],
        "small": [(6,), (4, 5, 6), (3, 4, 5, 6), (2, 3, 4, 5, 6), (1, 2, 3)],
        "digits": [(6,), (4, 5, 6), (3, 4, 5, 6), (2, 3, 4, 5, 6), (1, 2, 3)],
        "smoke": [(6,), (3, 4, 5, 6)],
    }[preset]
    config = base("resets")
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
