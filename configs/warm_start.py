"""Warm starts of three models, data that keep arriving, shrink and perturb: Ash & Adams 2020, Table 1, Figure 2."""

from ml_collections import ConfigDict

from configs import presets
from configs.base import base, parse_arg, stage

DATASETS = ("cifar10", "cifar100", "svhn_cropped")
SHRINK_PERTURB = {"modules": ("all",), "shrink": 0.6, "perturb": 0.01, "statistics": "all"}
FIT = 0.99  # train accuracy at which a stage ends


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.NAMES, study=("table", "online"), dataset=DATASETS)
    config = base(f"warm_start_{chosen['study']}")
    config.dataset = chosen["dataset"]
    config.window = 0.01  # the metric is the accuracy at the end of training, as theirs
    config.model.update(width=16, stem="cifar")  # the thin network of the released code
    chunks = {"": 50, "small": 4, "digits": 5, "smoke": 3}[preset]
    if chosen["study"] == "table":
        _table(config, sgd=1e-3 if preset == "" else 1e-2)
    else:
        _online(config, chunks)
    presets.apply(config, preset)
    match preset:
        case "small":
            config.model.stem = "imagenet"
            config.train_images = 1000 * chunks if chosen["study"] == "online" else 5000
        case "digits":
            config.model.stem = "imagenet"
            config.seeds = (0, 1, 2, 3)
    if chosen["study"] == "table":
        _models(config)
    elif preset in ("small", "digits"):
        presets.lengths(config, pretrain=60, tune=60, eval_every=0)
    return config


def _table(config: ConfigDict, sgd: float) -> None:
    """A half until it is fit, then everything until it is fit, with each of two optimisers."""
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=350, until_accuracy=FIT)
    config.stages.tune = stage(
        epochs=350,
        until_accuracy=FIT,
        branches={
            "fresh": {"after": "init"},
            "pretrain+tune": {"after": "pretrain"},
            "shrink-perturb": {"after": "pretrain", "reset": SHRINK_PERTURB},
        },
    )
    rates = {"adam": 1e-3, "sgd": sgd}
    paths = [f"stages.{name}.optim" for name in config.stages]
    rules = {
        name: {f"{path}.{key}": value for path in paths for key, value in (("name", name), ("learning_rate", rate))}
        for name, rate in rates.items()
    }
    config.grid = (("optimiser", rules),)


def _models(config: ConfigDict) -> None:
    """The three models of Table 1 as an axis of the grid: the residual network of the preset, and two small ones."""
    others = {"mlp": {"model.depth": 2, "model.width": 100}, "logistic": {"model.depth": 1, "model.width": 1}}
    resnet = {"model.depth": config.model.depth, "model.width": config.model.width}
    models = {name: {"model.name": name, **sizes} for name, sizes in {"resnet": resnet, **others}.items()}
    config.grid = (("model", models), *config.grid)


def _online(config: ConfigDict, chunks: int) -> None:
    """Data in equal chunks; after each arrival everything so far is trained on until it is fit."""
    for chunk in range(1, chunks + 1):
        data = {"recipe": "split", "splits": chunks, "part": chunk}
        before = f"chunk{chunk - 1}/" if chunk > 1 else ""
        config.stages[f"chunk{chunk}"] = stage(
            data=data,
            epochs=350,
            until_accuracy=FIT,
            eval_every=0,
            eval_tail=0,
            branches={
                f"fresh-{chunk}": {"after": "init"},
                "warm": {"after": f"{before}warm" if before else "init"},
                "shrink-perturb": {"after": f"{before}shrink-perturb", "reset": SHRINK_PERTURB}
                if before
                else {"after": "init"},
            },
        )
    config.control = f"fresh-{chunks}"
