"""The line that says what a study was measured on."""

import importlib

import pytest

from plasticity_jax.analysis import scale
from tests.support import synthetic


@pytest.mark.parametrize(
    "config, arg, expected",
    [
        (
            "multistage",
            "",
            "CIFAR-10, all training images; resnet depth 2 width 64 stem imagenet; pretrain 350 epochs, "
            "tune 500 epochs; adam 0.001; seeds 0-4",
        ),
        (
            "multistage",
            "digits,optimiser=momentum",
            "scikit-learn's digits, all training images of which 20 % have wrong labels; resnet depth 1 width 8 stem "
            "imagenet; pretrain 30 epochs, tune 60 epochs; sgd momentum 0.9 0.001; seeds 0-7",
        ),
        (
            "splits",
            "",
            "CIFAR-10, all training images; resnet depth 2 width 64 stem imagenet; part1..part9 350 epochs, "
            "tune 500 epochs; adam 0.001; seeds 0-4",
        ),
        (
            "architecture",
            "",
            "CIFAR-10, all training images; resnet depth 1-4 width 16-128 stem imagenet; pretrain 350 epochs, "
            "tune 500 epochs; adam 0.001; seeds 0-4",
        ),
        (
            "controls",
            "",
            "CIFAR-10, all training images; resnet depth 2 width 64 stem imagenet/cifar; pretrain 350 epochs, tune 500 "
            "epochs or 675 epochs; adam 0.001; seeds 0-4",
        ),
        (
            "tuning_rate",
            "",
            "CIFAR-10, all training images; resnet depth 2 width 64 stem imagenet; pretrain 350 epochs, "
            "tune 500 epochs; adam 0.001-0.03; seeds 0-4",
        ),
        (
            "warm_start",
            "study=table,dataset=svhn_cropped",
            "SVHN, all training images; resnet depth 2 width 16 stem cifar, mlp depth 2 width 100, logistic; "
            "pretrain..tune 350 epochs (or until 99 % train accuracy); adam 0.001, sgd 0.001; seeds 0-4",
        ),
    ],
)
def test_scale(config, arg, expected):
    found = importlib.import_module(f"plasticity_jax.configs.{config}").get_config(arg)
    assert scale.describe(synthetic.study(found, lambda *_: 1.0)) == expected


def test_steps_seeds_and_images_are_said():
    config = synthetic.branches("", "fresh", "warm")
    config.update(seeds=(3,), train_images=12345, dataset="own_set")
    config.stages.tune.steps = 30
    text = scale.describe(synthetic.study(config, lambda *_: 1.0))
    assert text.startswith("own_set, 12,345 training images; ") and text.endswith("; tune 30 steps; adam 0.001; seed 3")


@pytest.mark.parametrize("seeds, expected", [((0, 1, 2), "seeds 0-2"), ((0, 2), "seeds 0, 2"), ((4,), "seed 4")])
def test_seeds_between_which_some_are_missing_are_listed(seeds, expected):
    config = synthetic.branches("", "fresh", "warm")
    config.seeds = seeds
    assert scale.describe(synthetic.study(config, lambda *_: 1.0)).rpartition("; ")[2] == expected


@pytest.mark.parametrize(
    "values, expected", [([1, 2, 3], "1-3"), ([5], "5"), ([0, 2], "0-2"), (["a", "b", "a"], "a/b"), ([1e-3], "0.001")]
)
def test_span(values, expected):
    assert scale.span(values) == expected
