"""Is the gap an artefact?  Controls that Berariu et al. 2021 leave out: updates, BatchNorm statistics, the stem."""

from ml_collections import ConfigDict

from configs import presets
from configs.base import base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    config = base("controls")
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350)
    config.stages.tune = stage(epochs=500)
    config.grid = (("model.stem", ("imagenet", "cifar")),)
    presets.apply(config, preset)
    match preset:
        case "small":
            config.train_images = 2000  # the CIFAR stem costs five times as much
            config.model.width = 4
        case "digits":
            config.model.width = 4
            config.seeds = (0, 1, 2, 3, 4)
            presets.lengths(config, pretrain=20, tune=40, eval_every=5)
    matched = config.stages.tune.epochs + config.stages.pretrain.data.fraction * config.stages.pretrain.epochs
    config.stages.tune.branches = ConfigDict(
        {
            "fresh": {"after": "init"},
            "pretrain+tune": {"after": "pretrain"},
            "fresh-matched": {"after": "init", "epochs": matched},  # as many updates as pretrain+tune has in all
            "fresh-statistics": {"after": "pretrain", "reset": {"statistics": "all"}},
        },
        sort_keys=False,
    )
    return config
