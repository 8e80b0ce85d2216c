"""The claims: each can be tested in its config, compares the right branches in the right direction, has a source."""

import functools
import importlib
import re
import zlib
from collections import Counter

import numpy as np
import pytest

from plasticity_jax import study_config
from plasticity_jax.analysis import verify
from plasticity_jax.analysis.claims import ash2020, berariu2021, controls
from plasticity_jax.analysis.effects import contrasts, stats
from plasticity_jax.analysis.effects.stats import ABOVE, BELOW, CONTRADICTED, DIRECTIONS, INCONCLUSIVE, REPRODUCED
from plasticity_jax.runner import prepare
from tests.support import small, synthetic

CLAIMS = (*berariu2021.CLAIMS, *controls.CLAIMS, *ash2020.CLAIMS)  # those of You et al. are in test_you.py
CONFIGS = {
    **{name: (name, "") for name in dict.fromkeys(claim.study for claim in CLAIMS) if "_start_" not in name},
    **{
        f"{of}_{name}": (of, f"optimiser={name}")
        for of in ("multistage", "pretrain_length")
        for name in ("rmsprop", "sgd", "momentum")
    },
    "warm_start_table": ("warm_start", "study=table"),
    "warm_start_online": ("warm_start", "study=online"),
}
# What the presets are too thin for; everything else is tested at every scale.
THINNER = {
    "": set(),
    "small": {("resets", "singles")},
    "digits": {("resets", "singles"), ("pretrain_length", "gap-5")},
}
END = float("inf")


def config(study, preset=""):
    file, arg = CONFIGS[study]
    settings = importlib.import_module(f"plasticity_jax.configs.{file}").get_config(
        ",".join(filter(None, [preset, arg]))
    )
    assert settings.name == study
    return settings


def jitter(label, seed):
    """At most 0.01, and different for each run: without any scatter there would be no interval."""
    return zlib.crc32(f"{label} {seed}".encode()) / 2**32 / 100


def as_the_papers_say(label, stage, seed, metric, epoch):
    """Numbers for which every claim is true; seeds differ by points, runs of a seed by hundredths."""
    branch, _, point = label.partition("[")
    if metric == "steps":
        return {"warm": 300, "shrink-perturb": 500}.get(branch, 1000) + (seed - 1) * (
            branch in ("warm", "shrink-perturb")
        )
    scatter = 3.0 * seed + jitter(label, seed)
    if metric == "train_accuracy":
        return 99.9 - jitter(label, seed) if epoch == END else 60.0 + scatter
    numbers = [float(text) for text in re.findall(r"\d+(?:\.\d+)?", label)]
    if "logistic" in point:
        return 40.0 + scatter
    if stage.startswith("chunk"):
        chunk = int(stage.removeprefix("chunk"))
        return 20.0 + 0.5 * chunk - 0.2 * chunk * (branch == "warm") + scatter
    match branch.split("-"):
        case ["fresh"] | ["fresh", "matched"] | ["replacement"] | ["shrink", "perturb"]:
            loss = 0.0
        case ["reset", "3" | "2", "6"]:
            loss = 0.0
        case ["reset", "4", "6"]:
            loss = 2.0
        case ["pretrain+tune"] if "rate=10x" in point:
            loss = 2.0
        case ["blend"]:
            loss = 4.0 * numbers[0]
        case ["splits", parts]:
            loss = 0.5 * int(parts)
        case ["splits", parts, "uniform", percent]:
            loss = 0.5 * int(parts) + 0.04 * (100 - int(percent))
        case _:
            loss = 4.0
    return 70.0 - loss + scatter


def the_opposite(label, stage, seed, metric, epoch):
    """Every difference reversed; train accuracies that contradict the claims about them."""
    value = as_the_papers_say(label, stage, seed, metric, epoch)
    scatter = 6.0 * seed  # the seeds still agree after the reversal
    if metric == "train_accuracy":
        late = {"pretrain+tune": 90.0}.get(label, 98.0)
        early = 99.5 if label == "pretrain" else 60.0 + 20.0 * label.startswith("reset")
        return (late if epoch == END else early) + jitter(label, seed)
    return 2000 - value if metric == "steps" else 140.0 + scatter - value


def nothing_alike(label, stage, seed, metric, epoch):
    """Numbers for which nothing is equal that a paper calls equal."""
    branch = label.partition("[")[0]
    value = as_the_papers_say(label, stage, seed, metric, epoch)
    if metric == "steps":
        return value
    warm = {"fresh": 0, "replacement": -9, "reset-3-6": -9, "reset-2-6": -9, "shrink-perturb": -9}.get(branch, -3)
    if "rate=10x" in label:
        warm += 5
    if "width=8" in label and branch != "fresh":
        warm -= 5
    if metric == "train_accuracy":
        warm = -warm  # ahead of a fresh one
    return 50.0 + warm + seed + jitter(label, seed)


def judged(world, preset=""):
    """(study, claim) -> its judgement on three seeds."""
    return _judged(world, preset)


@functools.cache
def _judged(world, preset):
    studies = []
    for study in CONFIGS:
        settings = config(study, preset)
        settings.seeds = (0, 1, 2)
        studies.append(synthetic.study(settings, world))
    return {(each.claim.study, each.claim.id): each for each in verify.judge(studies)}


def test_there_are_claims_about_every_study():
    names = {
        importlib.import_module(f"plasticity_jax.configs.{file}").get_config(arg).name for file, arg in CONFIGS.values()
    }
    assert names == {claim.study for claim in CLAIMS} == set(CONFIGS)


def test_ids_are_unique_and_can_be_anchors():
    assert not [key for key, count in Counter((claim.study, claim.id) for claim in CLAIMS).items() if count > 1]
    assert all(re.fullmatch(r"[a-z0-9-]{3,22}", claim.id) for claim in CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.study}-{claim.id}")
def test_a_claim_is_a_sentence_with_a_source(claim):
    assert re.fullmatch(r"[A-Z].*\.", claim.statement)
    assert re.search(r"(Berariu et al. 2021|Ash & Adams 2020)(,| \[| )", claim.source)
    assert claim.direction in DIRECTIONS and claim.margin > 0
    assert not claim.ours or "[inferred]" in claim.source
    assert claim.paper in (berariu2021.PAPER, ash2020.PAPER)


@pytest.mark.parametrize("preset", THINNER)
def test_every_claim_can_be_tested_at_every_scale(preset):
    lacking = {key for key, each in judged(as_the_papers_say, preset).items() if each.verdict == stats.UNTESTED}
    assert lacking == THINNER[preset]
    assert all("no such branches" in judged(as_the_papers_say, preset)[key].note for key in lacking)


@pytest.mark.parametrize("preset", THINNER)
def test_a_world_as_the_papers_say_reproduces_every_claim(preset):
    found = judged(as_the_papers_say, preset)
    assert {key for key, each in found.items() if each.verdict != REPRODUCED} == THINNER[preset]


def test_to_be_better_contradicts_no_claim_of_keeping_up():
    """A claim that something ends no lower than a fresh network is reproduced where it ends far above."""

    def better(label, stage, seed, metric, epoch):
        ahead = 20.0 if "reset" in label or "shrink" in label or "tune" in label else 0.0
        return 50.0 + (ahead if metric == "test_accuracy" else 0.0) + seed + jitter(label, seed)

    verdicts = {k: e.verdict for k, e in judged(better, "small").items() if e.claim.direction == stats.NOT_BELOW}
    assert set(verdicts.values()) == {REPRODUCED} and len(verdicts) >= 8


def test_the_opposite_contradicts_every_claim_of_a_difference():
    found = judged(the_opposite, "small")
    wrong = {key: each.verdict for key, each in found.items() if each.claim.direction in (ABOVE, BELOW)}
    assert {key for key, verdict in wrong.items() if verdict != CONTRADICTED} == THINNER["small"]


def test_where_nothing_is_alike_every_claim_of_equality_is_contradicted():
    by_claim = judged(nothing_alike, "small")
    equal = {key: each.verdict for key, each in by_claim.items() if each.claim.direction not in (ABOVE, BELOW)}
    assert {key for key, verdict in equal.items() if verdict != CONTRADICTED} == set()
    assert len(equal) > 12


def test_where_seeds_only_scatter_no_difference_is_found():
    def scatter(label, stage, seed, metric, epoch):
        rng = np.random.default_rng([seed, *f"{label}/{stage}/{metric}".encode()])
        return 100.0 if metric == "steps" else rng.normal(98.0, 2.0)

    differences = [each for each in judged(scatter, "small").values() if each.claim.direction == "above"]
    verdicts = Counter(each.verdict for each in differences if each.claim.unit != "updates")
    assert verdicts[INCONCLUSIVE] >= 0.8 * verdicts.total()


# The contrasts that are easiest to get wrong, written out at the paper's scale.
@pytest.mark.parametrize(
    "study, claim, formula",
    [
        ("pretrain_length", "gap-longest", "fresh - pretrain-350"),
        ("pretrain_length", "half-unfit", "99 - pretrain (train_accuracy at epoch 10 in pretrain)"),
        ("blending", "gap-replacement", "replacement - blend[gamma=0.9]"),
        ("splits", "gap", "fresh - splits-10"),
        ("splits", "gap-classes", "fresh - splits-10-uniform-0"),
        ("architecture", "gap-largest", "fresh[depth=4,width=128] - pretrain+tune[depth=4,width=128]"),
        ("resets", "speed-4", "fresh - reset-3-6 (train_accuracy at epoch 10)"),
        ("resets", "top", "reset-4-6 - reset-1-3"),
        (
            "tuning_rate",
            "shrinks-gap",
            "fresh[rate=1x] + pretrain+tune[rate=10x] - pretrain+tune[rate=1x] - fresh[rate=10x]",
        ),
        ("tuning_rate", "gap-remains", "fresh[rate=1x] - pretrain+tune[rate=10x]"),
        ("warm_start_online", "gap", "fresh-50 - warm (in chunk50)"),
        ("warm_start_online", "warm-faster", "fresh-50 - warm (steps in chunk50)"),
    ],
)
def test_what_a_claim_compares(study, claim, formula):
    assert judged(as_the_papers_say)[study, claim].formula == formula


@pytest.mark.parametrize(
    "study, claim, effect",
    [
        ("multistage", "gap", 4.0),
        ("pretrain_length", "early-stopping", 4.0),
        ("pretrain_length_sgd", "early-stopping", 4.0),
        ("pretrain_length", "half-unfit", 39.0 - 3.0),
        ("blending", "slope", -4.0),
        ("splits", "slope", None),
        ("splits", "slope-uniform", 4.0),
        ("architecture", "gap-mean", 4.0),
        ("architecture", "gap-by-width", 0.0),
        ("resets", "singles", 4.0),
        ("tuning_rate", "shrinks-gap", 2.0),
        ("warm_start_online", "gap-grows", 0.2),
        ("warm_start_online", "warm-faster", 700.0),
        ("warm_start_online", "shrink-perturb-faster", 500.0),
    ],
)
def test_the_effect_is_the_one_of_the_world(study, claim, effect):
    if effect is None:  # fresh counts as one data set, and loses 0 instead of 0.5 points
        effect = np.polyfit([1, 2, 3, 5, 10], [70, 69, 68.5, 67.5, 65], 1)[0]
    assert judged(as_the_papers_say)[study, claim].effect == pytest.approx(effect, abs=0.02)


@pytest.mark.parametrize("study", ["pretrain_length", "resets"])
@pytest.mark.parametrize("preset", THINNER)
def test_what_is_measured_at_an_epoch_is_evaluated_there(study, preset):
    settings = config(study, preset)
    parsed = study_config.parse(settings)
    total = 50_000 if not preset else settings.train_images or 1500
    names = contrasts.known(synthetic.study(settings, as_the_papers_say))
    sums = [claim.contrast(names) for claim in CLAIMS if claim.study == study]
    terms = [term for each in sums if each for term in each.terms if isinstance(term.at, float)]
    assert terms
    for pack in parsed.packs:
        times = prepare.draw_up(pack, parsed, small.dataset(train=total, test=10))
        for term in terms:
            stage = times[term.stage or "tune"]
            rows = [i for i, run in enumerate(stage.group.runs) if run.branch == term.label]
            assert rows and all(term.at in stage.points[i] for i in rows)
