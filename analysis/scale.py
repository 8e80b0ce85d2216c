"""Describes the data and the scale of a study in one line.

CIFAR-10 (JPEG), 5,000 training images; resnet depth 2 width 8 stem imagenet; pretrain 50, tune 60 epochs; adam 0.001;
seeds 0-2
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plasticity_jax.analysis import studies

NAMES = {
    "cifar10": "CIFAR-10",
    "cifar10_jpeg": "CIFAR-10 (JPEG)",
    "cifar100": "CIFAR-100",
    "svhn_cropped": "SVHN",
    "digits": "scikit-learn's digits",
    "imagenet2012": "ImageNet",
    "imagenet_resized/64x64": "ImageNet at 64x64",
}
NAMED = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # whose names say the depth
SIZES = {
    "resnet": ("depth", "width", "stem"),
    "mlp": ("depth", "width"),
    **dict.fromkeys(NAMED, ("width", "stem")),
}


def describe(study: studies.Study) -> str:
    """Data set, training images, networks, lengths of the stages, optimisers with their learning rates, and seeds."""
    return "; ".join([_data(study), _models(study), _lengths(study), _optimisers(study), _seeds(study)])


def span(values: Iterable[Any]) -> str:
    """`0.001-0.03` for the ends of numbers, `a/b` for words; one value as it is."""
    distinct = list(dict.fromkeys(values))
    if any(isinstance(value, str) for value in distinct):
        return "/".join(map(str, distinct))
    low, high = min(distinct), max(distinct)
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _data(study: studies.Study) -> str:
    name, images = study.config["dataset"], study.config["train_images"]
    noise = max(stage["data"]["label_noise"] for stage in studies.records(study))
    wrong = f" of which {100 * noise:g} % have wrong labels" if noise else ""
    return f"{NAMES.get(name, name)}, {f'{images:,}' if images else 'all'} training images{wrong}"


def _models(study: studies.Study) -> str:
    models: dict[str, list[Mapping[str, Any]]] = {}
    for pack in study.config["packs"]:
        models.setdefault(pack["model"]["name"], []).append(pack["model"])
    return ", ".join(
        " ".join([name, *(f"{size} {span(each[size] for each in named)}" for size in SIZES.get(name, ()))])
        for name, named in models.items()
    )


def _lengths(study: studies.Study) -> str:
    """`pretrain 50 epochs, tune 60 epochs`; stages in a row that are equally long as `part1..part4 30 epochs`."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for stage in studies.records(study):
        stages.setdefault(stage["name"], []).append(stage)
    texts = {name: _length(found) for name, found in stages.items()}
    parts = []
    for text, group in itertools.groupby(texts, key=texts.__getitem__):
        names = list(group)
        parts.append(f"{names[0]}..{names[-1]} {text}" if len(names) > 1 else f"{names[0]} {text}")
    return ", ".join(parts)


def _length(stages: Sequence[Mapping[str, Any]]) -> str:
    """The lengths of a stage's branches as text."""
    lengths = dict.fromkeys(
        f"{each['steps']} steps" if each["steps"] else f"{each['epochs']:g} epochs" for each in stages
    )
    until = max(each["until_accuracy"] for each in stages)
    return " or ".join(lengths) + (f" (or until {100 * until:g} % train accuracy)" if until else "")


def _optimisers(study: studies.Study) -> str:
    rates: dict[str, list[float]] = {}
    for stage in studies.records(study):
        rule = stage["optim"]
        momentum = f" momentum {rule['momentum']:g}" if rule["momentum"] else ""
        rates.setdefault(f"{rule['name']}{momentum}", []).append(rule["learning_rate"])
    return ", ".join(f"{name} {span(found)}" for name, found in rates.items())


def _seeds(study: studies.Study) -> str:
    seeds = sorted(study.config["seeds"])
    in_a_row = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"seed{'s'[: len(seeds) > 1]} {span(seeds) if in_a_row else ', '.join(map(str, seeds))}"
