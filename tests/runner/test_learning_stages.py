"""AutoDecay in whole studies: step decay bit for bit if nothing is detected, a clock per run, restored after a kill."""

import functools

import numpy as np
import pytest

from plasticity_jax.parallel import programs
from plasticity_jax.runner import dispatch, saver
from tests.support import small

SILENT = {
    "window": dict(least=10**6),
    "plateau": dict(patience=10**6),
    "slope": dict(least=10**6),
    "sasa": dict(least=10**6),
    "abel": {},  # the weight norm falls all the time here, so it has no turning point
}
RATE, EPOCHS = 0.1, 9.0


def config(schedule="autodecay", seeds=(0, 1), detector="window", **numbers):
    """9 epochs of 6 steps in three learning stages."""
    settings = small.single(epochs=EPOCHS)
    settings.update(seeds=seeds, strategy="loop")  # which compiles a program once for any number of runs
    settings.stages.train.optim.update(schedule=schedule, milestones=(1 / 3, 2 / 3), learning_rate=RATE)
    settings.stages.train.optim.detector.update(name=detector, window=1, capacity=32, **numbers)
    return settings


SPEAKING = functools.partial(config, rtol=0.08, atol=0.0, seeds=(0, 1, 2))


def ends(directory, run):
    """The epochs at which the learning stages of a run ended."""
    rows = small.rows(directory, "train", run=run)
    last = {row["metric"]: row["value"] for row in rows}
    return [last[f"learning_stage_end/{k}"] for k in (1, 2, 3)]


@pytest.fixture(scope="module")
def step_decay(tmp_path_factory):
    directory = tmp_path_factory.mktemp("step")
    return directory, small.run(config("step"), directory)


def without_ends(directory):
    rows = small.rows(directory, "train")
    return small.numbers([row for row in rows if not row["metric"].startswith("learning_stage_end")])


# Some are told of losses, which are there anyway, others of what is computed for them; by day one of each.
DETECTORS = [
    pytest.param(name, marks={"abel": (), "window": pytest.mark.slow}.get(name, pytest.mark.long)) for name in SILENT
]


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_detector_that_never_speaks_is_step_decay_to_the_bit(detector, step_decay, tmp_path):
    directory, expected = step_decay
    result = small.run(config(detector=detector, **SILENT[detector]), tmp_path)
    assert small.hashes(result) == small.hashes(expected)
    assert without_ends(tmp_path) == without_ends(directory)
    assert ends(tmp_path, "train/seed0") == [3.0, 6.0, 9.0]
    assert result["images"] == expected["images"]


@pytest.mark.exact
@pytest.mark.long
def test_so_it_is_with_convolutions_and_running_statistics(tmp_path):
    hashes = [
        small.hashes(small.run(config(schedule, **SILENT["window"]), tmp_path / schedule, model=small.Net()))
        for schedule in ("step", "autodecay")
    ]
    assert hashes[0] == hashes[1]


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """Three runs trained by one program call, though their learning stages end at different times."""
    directory = tmp_path_factory.mktemp("speaking")
    company = SPEAKING()
    company.strategy = "map"
    return directory, small.run(company, directory)


def test_every_run_ends_its_stages_by_itself(speaking):
    directory, result = speaking
    by_run = {run["run"]: ends(directory, run["run"]) for run in result["runs"]}
    assert len(set(map(tuple, by_run.values()))) > 1  # otherwise nothing here shows that clocks differ
    for run, (first, second, third) in by_run.items():
        lengths = [first, second - first, third - second]
        assert all(2 <= length <= 3 for length in lengths) and third < EPOCHS
        steps = max(row["step"] for row in small.rows(directory, "train", run=run))
        assert steps == 6 * third  # training ends with the last learning stage
        rates = small.curve(directory, run, "learning_rate", "train")
        expected = {6 * e: RATE * 0.1 ** sum(e > end for end in (first, second)) for e in range(1, int(third) + 1)}
        assert rates == pytest.approx(expected)
    total = sum(16 * max(row["step"] for row in small.rows(directory, "train", run=run)) for run in by_run)
    assert result["images"] == total


def test_a_run_is_the_same_alone_and_in_company(speaking, tmp_path):
    directory, result = speaking
    for seed in (0, 2):
        alone = small.run(SPEAKING(seeds=(seed,)), tmp_path / str(seed))
        run = f"train/seed{seed}"
        assert small.hashes(alone)[run] == small.hashes(result)[run]
        assert small.numbers(small.rows(tmp_path / str(seed), "train")) == small.numbers(
            small.rows(directory, "train", run=run)
        )


@pytest.mark.slow
def test_side_by_side_by_vmap_stages_end_as_one_after_another(speaking, tmp_path):
    side_by_side = SPEAKING()
    side_by_side.strategy = "vmap"
    small.run(side_by_side, tmp_path)
    for run in ("train/seed0", "train/seed1", "train/seed2"):
        assert ends(tmp_path, run) == ends(speaking[0], run)


class Killed(BaseException):
    """Is never caught, so nothing is saved after it, as after SIGKILL."""


# By day tests/runner/test_resume.py kills a study, and tests/training/test_detectors.py goes on with saved states.
@pytest.mark.long
@pytest.mark.parametrize("detector", ["window", "slope", "sasa", "abel", "plateau"])
def test_killed_in_the_middle_of_a_stage_it_goes_on_as_if_nothing_had_been(detector, tmp_path, monkeypatch):
    """Killed after every few short calls: inside epochs, inside learning stages, before and after their ends."""
    numbers = {"rtol": 0.08, "atol": 0.0, "patience": 0, "keep": 0.5, "significance": 0.2}
    asked = config(detector=detector, least=4 if detector in ("slope", "sasa") else 0, **numbers)
    asked.checkpoint_seconds = 0.0
    expected = small.run(asked, tmp_path / "unbroken")
    monkeypatch.setattr(dispatch, "CALL_SECONDS", 0.0)
    monkeypatch.setattr(saver, "CHECKPOINT_SHARE", 0)
    advance, calls, kills = programs.Programs.advance, 0, 0

    def failing(*args, **options):
        nonlocal calls, kills
        calls += 1
        if calls % 13 == 0:
            kills += 1
            raise Killed
        return advance(*args, **options)

    monkeypatch.setattr(programs.Programs, "advance", failing)
    for _ in range(40):
        try:
            result = small.run(asked, tmp_path / "killed")
            break
        except Killed:
            continue
    assert kills >= 3
    assert small.hashes(result) == small.hashes(expected)
    assert small.tables(tmp_path / "killed") == small.tables(tmp_path / "unbroken")
    if detector == "window":
        early = [ends(tmp_path / "killed", run["run"]) for run in result["runs"]]
        assert any(each[-1] < EPOCHS for each in early)


@pytest.mark.slow
def test_it_works_inside_a_plasticity_plan(tmp_path):
    """Pretraining and tuning each have their own learning stages; a warm start begins new ones."""
    plan = small.config(strategy="loop")
    for name in ("pretrain", "tune"):
        plan.stages[name].epochs = 6.0
        plan.stages[name].optim.update(schedule="autodecay", milestones=(0.5,), learning_rate=RATE)
        plan.stages[name].optim.detector.update(window=1, rtol=0.3)
    plan.stages.tune.branches["kept"] = {"after": "pretrain", "reset": {"optimiser": "keep"}}
    result = small.run(plan, tmp_path)
    assert {run["status"] for run in result["runs"]} == {"finished"}
    for stage, branches in (("pretrain", ["pretrain"]), ("tune", ["fresh", "pretrain+tune", "kept"])):
        for branch in branches:
            rates = small.curve(tmp_path, f"{branch}/seed0", "learning_rate", stage)
            assert rates[min(rates)] == pytest.approx(RATE) and rates[max(rates)] == pytest.approx(RATE / 10)
            last = {row["metric"]: row["value"] for row in small.rows(tmp_path, stage, run=f"{branch}/seed0")}
            assert 2 <= last["learning_stage_end/1"] < last["learning_stage_end/2"] <= 6


@pytest.mark.slow
def test_without_milestones_it_ends_training_that_rests(tmp_path):
    settings = config(rtol=0.25, atol=0.0, seeds=(0,))
    settings.stages.train.optim.milestones = ()
    small.run(settings, tmp_path)
    last = {row["metric"]: row["value"] for row in small.rows(tmp_path, "train")}
    assert 2 <= last["learning_stage_end/1"] < EPOCHS and "learning_stage_end/2" not in last


def test_a_stage_that_is_to_last_does(tmp_path):
    small.run(config(rtol=0.9, seeds=(0,), end_last=False), tmp_path)
    first, second, third = ends(tmp_path, "train/seed0")
    assert (first, second) == (2.0, 4.0) and third - second == 3.0


def test_the_rate_of_step_decay_is_in_the_table(step_decay):
    rates = small.curve(step_decay[0], "train/seed0", "learning_rate", "train")
    assert rates == pytest.approx({6 * e: RATE * 0.1 ** ((e - 1) // 3) for e in range(1, 10)})


def test_gradient_norms_are_means_over_the_epoch(step_decay):
    norms = small.curve(step_decay[0], "train/seed0", "gradient_norm", "train")
    assert list(norms) == [6 * e for e in range(1, 10)] and all(np.isfinite(v) and v > 0 for v in norms.values())
