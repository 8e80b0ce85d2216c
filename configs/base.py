"""The defaults of all experiments; they are defined only here.

`plasticity_jax/config/spec.py` documents the keys.
"""

import copy
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.errors import ConfigError

# Only Adam's learning rate is known from Berariu et al. 2021; the others let 350 epochs fit the training half.
OPTIMISERS: dict[str, dict[str, Any]] = {
    "adam": {"name": "adam", "learning_rate": 1e-3},
    "adamw": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2},
    "rmsprop": {"name": "rmsprop", "learning_rate": 1e-3, "b2": 0.99},
    "sgd": {"name": "sgd", "learning_rate": 1e-2},
    "momentum": {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9},
    "sam": {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "rho": 0.1},
    "muon": {"name": "muon", "learning_rate": 1e-3, "momentum": 0.95, "weight_decay": 1e-2},
}

# The numbers of each remedy: those of its paper if known, or the middle of the grid that was searched there
# (`../plasticity_jax/training/remedies` says which).  They should be tuned for every protocol.
REMEDIES: dict[str, dict[str, Any]] = {
    "l2_init": {"strength": 1e-2},
    "spectral": {"strength": 1e-3},
    "parseval": {"strength": 1e-3, "scale": 1.0},
    "feature_norm": {"strength": 1e-4},
    "infer": {"strength": 1e-2, "scale": 10.0},
    "churn": {"strength": 0.1},
    "distillation": {"strength": 1.0, "share": 0.5},
    "weight_clipping": {"bound": 2.0},
    "soft_weight_rescaling": {"rate": 1e-3},
    "normalise_and_project": {"decay": 1e-3},
    "redo": {"every": 1000, "threshold": 0.1},
    "continual_backprop": {"every": 1, "rate": 1e-4, "maturity": 100, "decay": 0.99},
    "self_normalised_resets": {"every": 1, "rejection": 0.01},
    "shrink_and_perturb": {"every": 1000, "shrink": 0.8, "perturb": 0.1},
    "hare_tortoise": {"every": 1000, "decay": 0.999},
    "selective_reinitialisation": {"every": 1000, "share": 1e-3},
    "fire": {},
    "dash": {"momentum": 0.3, "least": 0.3},
    "plasticity_injection": {},
}

# Augmentations of a data set that preserve the class: a mirrored digit is another one or none, and a crop of an image
# as small as those of `digits` is another image.
AUGMENT = {
    "cifar10": "crop_flip",
    "cifar100": "crop_flip",
    "svhn_cropped": "crop",
    "digits": "none",
    **dict.fromkeys(("imagenet2012", "imagenet_resized/64x64", "caltech101", "caltech_birds2011"), "resized_crop_flip"),
}


def base(name: str = "") -> ConfigDict:
    """A study without stages: data and network of Berariu et al. 2021, and settings of evaluation.

    `name` selects the claims and figures of the study in the analysis; a custom study needs none.
    """
    config = ConfigDict()
    config.name = name
    config.dataset = "cifar10"
    config.data_dir = ""
    config.holdout = 0.0
    config.holdout_seed = 0
    config.test_split = "test"
    config.resize = 0
    config.image_size = 0
    config.images = "auto"
    config.train_images = 0
    config.validation_images = 0
    config.test_images = 0
    config.seeds = (0, 1, 2, 3, 4)
    config.model = ConfigDict(
        {
            "name": "resnet",
            "depth": 2,
            "width": 64,
            "stem": "imagenet",
            "norm": "batch",
            "dtype": "auto",
            "activation": "relu",
            "dropout": 0.0,
            "injected": (),
            "zero_scale": False,
        }
    )
    config.stages = ConfigDict(sort_keys=False)
    config.control = "fresh"
    config.window = 0.2
    config.diagnostics = ("weight_norm", "distance_to_init", "effective_rank", "dormant_fraction")
    config.instruments = ()
    config.measure_images = 2048
    config.train_eval_images = 0
    config.mean = ()
    config.std = ()
    config.eval_batch = 500
    config.matmul_precision = "default"
    config.strategy = "auto"
    config.checkpoint_seconds = 5.0
    config.grid = ()
    return config


def sweep(studies: Mapping[str, ConfigDict]) -> ConfigDict:
    """A sweep of several studies by the names of their directories, for `launch.local` or another launcher."""
    dotted = [key for key in studies if "." in key]
    if dotted:
        raise ConfigError(f"config.studies.{dotted[0]}: a study's name has no dot, which flags read as a path")
    return ConfigDict({"studies": dict(studies)}, sort_keys=False)


def stage(
    branches: Mapping[str, Mapping[str, Any]] | None = None,
    data: Mapping[str, Any] | None = None,
    reset: Mapping[str, Any] | None = None,
    remedies: Mapping[str, Mapping[str, Any]] | None = None,
    **overrides: Any,
) -> ConfigDict:
    """A stage with all keys.

    Args:
      branches: branch name -> the keys of the stage that the branch changes, in particular `after`.
      data, reset: changes to the defaults of these groups.
      remedies: a result of `treated`; none by default.
      **overrides: other keys of the stage; `optim` is a result of `optimiser`.
    """
    config = ConfigDict()
    config.after = "init"
    config.data = ConfigDict(
        {
            "member": 0,
            "classes": (),
            "recipe": "random",
            "fraction": 1.0,
            "splits": 1,
            "part": 1,
            "uniform": 1.0,
            "gamma": 0.5,
            "replacement": False,
            "shuffle": True,
            "label_noise": 0.0,
            "deficit": "none",
            "patch": {
                "share": 0.0,
                "size": 7,
                "shared": 1.25,
                "own": 0.1,
                "patterns": 1,
                "alone": 0.2,
                "stretch": 1.75,
            },
            "tasks": {"change": "none", "epochs": 1},
        }
    )
    config.epochs = 500.0
    config.steps = 0
    config.until_accuracy = 0.0
    config.batch_size = 128
    config.micro_batch = 0
    config.augment = "none"
    config.trained = ("all",)
    config.ema = 0.0
    config.optim = optimiser("adam")
    config.reset = ConfigDict(
        {"modules": (), "shrink": 0.0, "perturb": 1.0, "statistics": "modules", "optimiser": "all", "function": ""}
    )
    config.eval_every = 5
    config.eval_tail = 1
    config.measure_steps = ()
    config.measure_every = 0
    config.remedies = ConfigDict(dict(remedies or {}), sort_keys=False)
    config.label_smoothing = 0.0
    config.activation_noise = 0.0
    config.branches = ConfigDict(dict(branches or {}), sort_keys=False)
    _update(config.data, data or {}, "data")
    _update(config.reset, reset or {}, "reset")
    _update(config, overrides, "stage")
    return config


def optimiser(name: str, **overrides: Any) -> ConfigDict:
    """`adam`, `adamw`, `rmsprop`, `sgd`, `momentum` (sgd with momentum), `sam` (of that) or `muon`, constant rate."""
    if name not in OPTIMISERS:
        raise ConfigError(f"optimiser={name!r}: choose one of {', '.join(OPTIMISERS)}")
    config = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 1e-3,
            "momentum": 0.0,
            "nesterov": False,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "weight_decay": 0.0,
            "clip_norm": 0.0,
            "rho": 0.0,
            "schedule": "constant",
            "warmup": 0.0,
            "milestones": (),
            "decay": 0.1,
            "detector": {
                "name": "window",
                "window": 5,
                "rtol": 0.01,
                "atol": 1e-3,
                "z": 0.0,
                "patience": 10,
                "least": 0,
                "keep": 0.125,
                "capacity": 4096,
                "significance": 0.05,
                "end_last": True,
            },
            "decayed": "all",
            "reference_batch": 0,
        }
    )
    _update(config, OPTIMISERS[name] | overrides, "optimiser")
    return config


def treated(**remedies: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Remedies for a stage or a branch, with changes to their defaults: `treated(redo={"every": 100})`.

    Raises:
      ConfigError: an unknown remedy or number.
    """
    chosen = {}
    for name, numbers in remedies.items():
        defaults = REMEDIES[_choose("remedy", name, list(REMEDIES))]
        chosen[name] = defaults | {_choose(f"{name} key", key, list(defaults)): n for key, n in numbers.items()}
    return chosen


def step_decay(**overrides: Any) -> ConfigDict:
    """SGD at 0.1, 0.01 and 0.001 in three equally long learning stages, with momentum and weight decay."""
    rule = {"learning_rate": 0.1, "weight_decay": 5e-4, "schedule": "step", "milestones": (1 / 3, 2 / 3), "decay": 0.1}
    return optimiser("momentum", **rule | overrides)


def parse_arg(
    arg: str, presets: Collection[str], several: Collection[str] = (), **choices: Collection[str]
) -> tuple[str, dict[str, str]]:
    """Parses the ARG of `--config=FILE:ARG`, for example `small,optimiser=sgd`.

    Args:
      arg: words separated by commas in any order: one preset at most, and KEY=VALUE for keys of `choices`.
      presets: the names of presets.
      several: the keys that can have more than one value, joined by +.
      **choices: the values that each key can have, the default first.

    Returns:
      The preset, empty for none, and the value of every key.

    Raises:
      ConfigError: an unknown word, key or value, or two presets.
    """
    preset, values = "", {key: next(iter(options)) for key, options in choices.items()}
    for word in filter(None, (part.strip() for part in arg.split(","))):
        key, equals, value = word.partition("=")
        if not equals:
            preset, before = _choose("argument", word, [*presets, *(f"{key}=.." for key in choices)]), preset
            if before not in ("", preset):
                raise ConfigError(f"arguments {before} and {preset} exclude each other; give one of them")
        else:
            _choose("argument", key, list(choices))
            for choice in value.split("+") if key in several else (value,):
                _choose(key, choice, list(choices[key]))
            values[key] = value
    return preset, values


def _choose(what: str, word: str, options: list[str]) -> str:
    if word in options:
        return word
    if not options:
        raise ConfigError(f"{what} {word}: there is no such {what}, and none can be given")
    close = difflib.get_close_matches(word, options, 1, 0)[0]
    raise ConfigError(f"{what} {word}: there is no such {what}; did you mean {close}? (choices: {', '.join(options)})")


def _update(config: ConfigDict, changes: Mapping[str, Any], where: str) -> None:
    for key, value in changes.items():
        key = _choose(f"{where} key", key, list(config))
        if isinstance(config[key], ConfigDict) and isinstance(value, (ConfigDict, Mapping)):
            _update(config[key], value, f"{where}.{key}")
        else:
            # Copied, so that an override of one stage's branches does not change other stages with the same object.
            config[key] = copy.deepcopy(value)
