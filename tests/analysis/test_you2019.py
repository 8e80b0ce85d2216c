"""The claims of You et al. 2019, and the measures of a transition that they are made of."""

import functools
import importlib
import math
import re
import zlib
from collections import Counter
from pathlib import Path

import pytest

from plasticity_jax import study_config
from plasticity_jax.analysis import studies, verify
from plasticity_jax.analysis.claims import you2019, you2019_implications, you2019_patterns
from plasticity_jax.analysis.effects import stats, transitions
from plasticity_jax.analysis.effects.transitions import At
from plasticity_jax.runner import prepare
from tests.support import small, synthetic

RESULTS = Path(__file__).parents[2] / "analysis" / "results"
CLAIMS = (*you2019.CLAIMS, *you2019_patterns.CLAIMS, *you2019_implications.CLAIMS)
STUDIES = sorted({claim.study for claim in CLAIMS})
# A stage of 20 epochs from 2.0 down by 0.01 an epoch, a fall by 0.5 at epoch 20, then the same slope.
CURVE = {float(e): 2.0 - 0.01 * e - 0.5 * (e > 20) for e in range(41)}
BOUNDS = (0.0, 20.0, 40.0)


def test_ids_are_unique_and_sources_are_named():
    assert not [key for key, count in Counter((claim.study, claim.id) for claim in CLAIMS).items() if count > 1]
    assert {claim.paper for claim in CLAIMS} == {"You et al. 2019"}
    assert all(re.fullmatch(r"[A-Z].*\.", claim.statement) for claim in CLAIMS)
    assert all("10 %" not in claim.statement for claim in CLAIMS)  # the one number of the paper is not claimed


def test_a_jump_is_the_fall_and_the_slope():
    # k = 3: means of epochs 18..20 and 21..23 lie three epochs of slope apart
    assert transitions.measure(At(transitions.JUMP, 1), CURVE, BOUNDS, rises=False) == pytest.approx(0.5 + 0.03)
    assert transitions.measure(At(transitions.JUMP, 1), CURVE, BOUNDS, rises=True) == pytest.approx(-0.53)
    assert transitions.measure(At(transitions.JUMP, 1, shift=-1 / 3), CURVE, BOUNDS, rises=False) == pytest.approx(0.03)
    assert transitions.measure(At(transitions.JUMP, 1, shift=1 / 3), CURVE, BOUNDS, rises=False) == pytest.approx(0.03)


@pytest.mark.parametrize("kind", [transitions.JUMP, transitions.SHARPNESS, transitions.BEFORE, transitions.AFTER])
@pytest.mark.parametrize("decay", [1, 2])
@pytest.mark.parametrize("shift", you2019.PLACEBOS)
@pytest.mark.parametrize("length", [9, 12, 15, 20, 45, 60])
def test_a_placebo_keeps_its_distance_to_every_decay(kind, decay, shift, length):
    """Only the 2 k epochs around each decay differ, and no placebo depends on them."""
    bounds = [0.0, length, 2.0 * length, 3.0 * length]
    k = transitions.span(bounds)
    plain = {float(e): 2.0 - 0.01 * e + 0.001 * (e % 3) for e in range(3 * length + 1)}
    fallen = {e: y + e * any(t - k < e <= t + k for t in bounds[1:-1]) for e, y in plain.items()}
    measured, other = (
        transitions.measure(At(kind, decay, shift), curve, bounds, rises=False) for curve in (fallen, plain)
    )
    assert math.isnan(measured) or measured == other
    assert math.isfinite(measured) or length < 15  # at every scale of the study there are enough epochs
    at_decay = [transitions.measure(At(kind, decay), curve, bounds, rises=False) for curve in (fallen, plain)]
    assert at_decay[0] != at_decay[1]


def test_the_ratio_is_a_share_of_the_progress():
    # from epoch 3 to 20 the loss fell by 0.17
    assert transitions.measure(At(transitions.RATIO, 1), CURVE, BOUNDS, rises=False) == pytest.approx(0.53 / 0.17)
    assert transitions.measure(At(transitions.END, 1), CURVE, BOUNDS, rises=False) == pytest.approx(1.8)


def test_sharpness_counts_scatter_around_a_line():
    noisy = {e: y + (0.01 if int(e) % 2 else -0.01) for e, y in CURVE.items()}
    smooth, rough = (transitions.measure(At(transitions.SHARPNESS, 1), c, BOUNDS, rises=False) for c in (CURVE, noisy))
    assert 30 < rough < 70 < smooth


def test_what_the_curve_does_not_reach_is_nan():
    assert math.isnan(transitions.measure(At(transitions.JUMP, 2), CURVE, BOUNDS, rises=False))
    short = {e: y for e, y in CURVE.items() if e < 22}
    assert math.isnan(transitions.measure(At(transitions.JUMP, 1), short, BOUNDS, rises=False))
    with pytest.raises(ValueError, match="kind='leap'"):
        transitions.measure(At("leap", 1), CURVE, BOUNDS, rises=False)


# ---- worlds in which everything is as You et al. say, or the opposite, at every scale ----

CONFIGS = {name: (name, "") for name in STUDIES} | {
    f"patterns_{study}": ("patterns", f"study={study}") for study in ("patches", "graded")
}
PRESETS = ("", "small", "digits")
METRICS = (
    *("train_loss", "train_eval_loss", "test_loss", "ema_train_eval_loss"),
    *("test_accuracy", "ema_test_accuracy", "validation_accuracy", "patch_only_accuracy"),
    *(f"bits{bits}_accuracy" for bits in (0, 2, 4, 6)),
)
END = math.inf


@functools.cache
def numbers(label):
    """The values in a label by name: `a[x=1,y=2]` gives x and y."""
    return dict(re.findall(r"([\w.]+)=([^,\]]+)", label))


def training(label, metric, share, opposite):
    """A curve that falls, or rises, at each decay; a small wave gives it scatter."""
    falls = sum(size for size, decay in ((0.3, 1 / 3), (0.2, 2 / 3)) if share > decay + 1e-9) * (-1 if opposite else 1)
    loss = 2.0 - 0.2 * share - (falls if "constant" not in label else 0.0) + 0.002 * math.sin(300 * share)
    return 100.0 - 20.0 * loss if metric.endswith("accuracy") else loss


def noise(label, metric, opposite):
    """Losses that fall with noise and hardly without it, or the opposite: rise with it and fall without."""
    arm = numbers(label)["arm"]
    drop = {"plain": 0.4, "augmented": 0.2, "large": 0.2}.get(arm, -0.4 if opposite else 0.005)
    drop = -drop if opposite else drop
    if metric == "ema_test_accuracy" and opposite:
        return 40.0
    match label.partition("[")[0]:
        case "decay":
            change = -drop
        case "grown":
            change = -0.9 * drop
        case _:
            change = -0.3 * drop if metric.startswith("ema") else 0.0
    return 50.0 if metric.endswith("accuracy") else 1.0 + change


def patches(label, metric, share):
    large = label.startswith("large")
    if metric == "patch_only_accuracy":
        return 95.0 if share > 0.5 + 1e-9 else 10.0 if large else 80.0
    return 45.0 if large else 30.0


def graded(label, metric, share):
    branch, quiet = label.partition("[")[0], numbers(label)["batch_size"] == "320"
    bits = int(metric.removeprefix("bits")[0])
    if bits == 6:
        return 20.0 if quiet or branch in ("rate-2", "stepdecay") else 10.0
    return {0: 99.0, 2: 90.0, 4: 60.0 if branch == "stepdecay" and share > 1 / 3 + 1e-9 else 40.0}[bits]


def schedules(label, metric):
    """Updates and accuracies of the schedules; compressed ones lose 0.2 points for each percent."""
    kind, _, share = numbers(label)["schedule"].rpartition("-")
    percent = float(share) if kind in ("compressed", "cosine") else 100.0
    if metric != "steps":
        return 70.0 - 0.2 * (100.0 - percent)
    stepwise = percent < 100.0 or numbers(label)["schedule"] in ("stepdecay", "early", "late")
    return 10.0 * percent if stepwise else 800.0


def transfer(label, stage, metric, share):
    name = label.partition("[")[0]
    if stage == "train":
        return 60.0 if name == "constant" else 50.0 + 20.0 * min(share, 1.0)
    return {
        "untrained": 40.0,
        "stage-1": 50.0,
        "stage-2": 50.5,
        "stage-3": 49.0,
        "constant-3": 52.0,
        "fresh": 60.0,
    }.get(name.removeprefix("probe-").removeprefix("finetune-"), {"tune-stage-1": 58.0, "tune-stage-3": 55.0}.get(name))


@functools.cache
def begun(*curve):
    """The checksum over what all measurements of a curve have in common."""
    return zlib.crc32(repr(curve).encode())


def scatter(*curve, epoch):
    """Less than 0.001, and different for each measurement: without any scatter there would be no interval."""
    return zlib.crc32(repr(epoch).encode(), begun(*curve)) / 2**32 / 1000


def world(study, config, opposite):
    """Numbers for which You et al. are right, or wrong about every difference."""
    train = config.stages.get("train")
    total = float(train.epochs) if train is not None else 1.0

    def as_they_say(label, stage, seed, metric, epoch):
        share = 2.0 if epoch == END else epoch / total
        rest = scatter(label, stage, seed, metric, epoch=epoch)
        if metric == "steps" and study != "autodecay":
            return None
        match study:
            case "stepdecay":
                return training(label, metric, min(share, 1.0), opposite) + rest
            case "noise":
                return noise(label, metric, opposite) + rest
            case "patterns_patches":
                value = patches(label, metric, share)
            case "patterns_graded":
                value = graded(label, metric, share) if metric.startswith("bits") else 50.0
            case "autodecay":
                value = schedules(label, metric)
            case "transfer":
                value = transfer(label, stage, metric, share)
        if value is None or metric == "steps":
            later = round(1e4 * rest) if value else 0.0
            return (1600.0 - value if opposite else value) + later if value else value
        return (200.0 - value if opposite else value) + rest

    return as_they_say


@functools.cache
def judged(study, preset, opposite=False):
    """Claim -> its judgement on three seeds, on the numbers of the paper or on the opposite ones."""
    file, arg = CONFIGS[study]
    config = importlib.import_module(f"plasticity_jax.configs.{file}").get_config(",".join(filter(None, [preset, arg])))
    config.seeds = (0, 1, 2)

    def every_epoch(end):  # stages that count updates call them epochs here; hundreds of points are enough
        return [float(epoch) for epoch in range(1, int(end), 1 if end <= 600 else int(end) // 50)]

    metrics = [name for name in METRICS if study.startswith("patterns") or not name.startswith(("bits", "patch"))]
    made = synthetic.study(config, world(study, config, opposite), metrics=metrics, epochs=every_epoch)
    return {each.claim.id: each for each in verify.judge([made]) if each.claim.study == study}


def test_every_study_of_the_paper_has_claims():
    assert {
        importlib.import_module(f"plasticity_jax.configs.{file}").get_config(arg).name for file, arg in CONFIGS.values()
    } == set(STUDIES)


# Of the paper's scale claims are tested on ten times as many epochs, which by day is left out.
WORLDS = [
    pytest.param(study, preset, marks=() if preset else pytest.mark.long) for study in STUDIES for preset in PRESETS
]


@pytest.mark.parametrize(("study", "preset"), WORLDS)
def test_a_world_as_the_paper_says_reproduces_every_claim(study, preset):
    found = judged(study, preset)
    assert {id for id, each in found.items() if each.verdict != stats.REPRODUCED} == set()
    assert set(found) == {claim.id for claim in CLAIMS if claim.study == study}


@pytest.mark.parametrize("study", STUDIES)
def test_the_opposite_contradicts_every_difference(study):
    by_claim = judged(study, "small", opposite=True)
    equal = {id for id, each in by_claim.items() if each.claim.direction == stats.WITHIN or id.startswith("same")}
    differences = {id: each.verdict for id, each in by_claim.items() if id not in equal}
    assert {id for id, verdict in differences.items() if verdict != stats.CONTRADICTED} == set()


@pytest.mark.parametrize("preset", PRESETS)
def test_noise_is_evaluated_soon_after_a_change(preset):
    parsed = study_config.parse(importlib.import_module("plasticity_jax.configs.noise").get_config(preset))
    for pack in parsed.packs:
        times = prepare.draw_up(pack, parsed, small.dataset(train=parsed.train_images, test=500))
        for name in ("after", "grown"):
            for points in times[name].points:
                assert any(0 < epoch <= studies.EARLY * max(points) + 1e-9 for epoch in points), (pack.name, name)


# ---- what is published ----


@pytest.mark.parametrize("name", [name for name in STUDIES if (RESULTS / name / "result.json").exists()])
def test_every_claim_is_tested_on_its_study(name):
    found = verify.judge([studies.read(RESULTS / name)])
    assert {each.claim.id for each in found} == {claim.id for claim in CLAIMS if claim.study == name}
    assert not [each.claim.id for each in found if each.verdict == stats.UNTESTED]
