"""Titles of charts and the captions below them."""

import dataclasses

from plasticity_jax.analysis.plots import captions
from tests.support import tables

FOUND = {"fresh": {0: 80.0, 1: 81.0, 2: 82.0, 3: 90.0}, "warm": {0: 75.0, 1: 75.0, 2: 75.0}}
MINUS = "\N{MINUS SIGN}"


def test_a_gap_is_taken_seed_by_seed():
    assert captions.difference(FOUND, "fresh", "warm") == {0: 5.0, 1: 6.0, 2: 7.0}
    assert captions.difference(FOUND, "fresh", "gone") == captions.difference(FOUND, "gone", "fresh") == {}
    told = f"fresh {MINUS} warm: 6.00 points (95% interval 3.52 to 8.48, n = 3)"
    assert captions.gap(FOUND, "fresh", "warm") == told
    assert captions.gap(FOUND, "warm", "fresh").startswith(f"warm {MINUS} fresh: {MINUS}6.00 points")


def test_an_effect_of_few_seeds():
    assert captions.effect("gap", {4: 1.5}, "%") == "gap: 1.50% (n = 1)"
    assert captions.effect("noise", {0: -48903.5}, "") == f"noise: {MINUS}48,904 (n = 1)"
    assert captions.effect("top", {0: 300.4, 1: 310.4}, "") == "top: 305 (95% interval 242 to 369, n = 2)"
    assert captions.effect("fit", {0: 98.0, 1: 99.0}, "%") == "fit: 98.50% (95% interval 92.15 to 104.85, n = 2)"
    assert captions.effect("gap", {}) == captions.gap(FOUND, "fresh", "gone") == ""


def test_the_title_says_what_is_known_and_whether_it_is_all(tmp_path):
    study = tables.write(tmp_path, tables.preset("tuning_rate", "digits", seeds=(0,)), lambda label, seed: 50.0)
    assert captions.title(study, "one", "", "two") == "one; two"
    assert captions.title(study, "") == "tuning rate"
    assert captions.title(dataclasses.replace(study, result=None), "one") == "one (in progress)"


def about(tmp_path, *arguments, failed=(), **changed) -> str:
    study = tables.write(tmp_path, tables.preset(*arguments, **changed), lambda label, seed: 50.0, failed=failed)
    return captions.about(study)


def test_about_names_data_network_lengths_and_seeds(tmp_path):
    said = about(tmp_path, "multistage", "digits", dataset="cifar10_jpeg", seeds=(0,), failed=["fresh/seed0"])
    parts = (
        "CIFAR-10 (JPEG)",
        "20% of the labels wrong",
        "ResNet depth 1 width 8 stem imagenet",
        "adam",
        "30 + 60 epochs",
    )
    assert said == ", ".join([*parts, "1 seed", "1 failed run left out"])
    changed = {"train_images": 4000, "seeds": (0, 1)}
    assert about(tmp_path / "few", "multistage", "digits", **changed).startswith(
        "scikit-learn's digits, 4,000 train images, 20%"
    )


def test_about_says_what_is_common_to_all_packs(tmp_path):
    assert "ResNet stem imagenet, adam, 350 + 500 epochs, 5 seeds" in about(tmp_path / "a", "architecture", "")
    named = about(tmp_path / "f", "multistage", "", model={"name": "resnet50"})
    assert "ResNet-50 width 64 stem imagenet, adam" in named
    several = about(tmp_path / "b", "warm_start", "digits")
    assert "ResNet / MLP / logistic regression, adam and sgd, at most 30 + 60 epochs (until 99% train" in several
    assert "20 + 40 epochs" in about(tmp_path / "c", "controls", "digits")  # though one branch is longer
    assert "9 \N{MULTIPLICATION SIGN} 350 + 500 epochs" in about(tmp_path / "d", "splits", "", seeds=(0,))
    assert "2 \N{MULTIPLICATION SIGN} 30 steps" in about(tmp_path / "e", "multistage", "smoke")
