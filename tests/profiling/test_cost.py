"""The cost of a part of a pack: the number of images, the memory, and the time."""

import dataclasses

import pytest

from plasticity_jax import study_config
from plasticity_jax.configs import base
from plasticity_jax.errors import RoomError
from plasticity_jax.parallel import memory
from plasticity_jax.profiling import autotune, cost, memory_check
from plasticity_jax.runner import prepare
from tests.support import small

RATE = "stages.tune.optim.learning_rate"


def study(seeds=(0, 1), rates=(0.1, 0.2), **top):
    return study_config.parse(small.config(seeds=seeds, grid=((RATE, rates),), **top))


def part(found, points=None):
    (pack,) = found.packs
    return dataclasses.replace(pack, plans=tuple(pack.plans[i] for i in points)) if points else pack


@pytest.fixture(scope="module")
def measured():
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autotune, "ROUND_SECONDS", 0.05)
        estimate = cost.measure(part(study()), study(), small.TOY, said.append)
    return estimate, said


def test_runs_and_images_are_those_of_the_timetables():
    parsed = study()
    counted = cost.count(part(parsed), parsed, small.TOY)
    times = prepare.draw_up(part(parsed), parsed, small.TOY)
    assert {group: 2 * runs for group, runs in counted.runs.items()} == {"pretrain": 2, "tune": 8}
    assert {group: 2 * images for group, images in counted.images.items()} == {n: t.images() for n, t in times.items()}
    assert counted.finals == 4
    assert cost.count(part(parsed, [0]), parsed, small.TOY).runs == {"pretrain": 1, "tune": 2}


@pytest.mark.long
def test_memory_is_what_room_finds_for_the_whole(measured, tmp_path, monkeypatch):
    """The line from one seed and point gives the bytes that XLA reports for 3 seeds and 2 points, or slightly more."""
    parsed = study((0, 1, 2))
    predicted = measured[0].bytes(cost.count(part(parsed), parsed, small.TOY), 3)
    totals = []
    check = memory_check.Need.total

    def total(self, count, strategy):
        totals.append(check(self, count, strategy))
        return totals[-1]

    monkeypatch.setattr(memory_check.Need, "total", total)
    small.run(small.config(seeds=(0, 1, 2), grid=((RATE, (0.1, 0.2)),)), tmp_path)
    assert max(totals) == pytest.approx(predicted, rel=0.05)
    bytes_ = [measured[0].bytes(cost.count(part(parsed), parsed, small.TOY), seeds) for seeds in (1, 10, 100)]
    assert bytes_[0] < bytes_[1] < bytes_[2] < 100 * bytes_[0]


def test_time_grows_with_images(measured):
    estimate, said = measured
    assert set(estimate.rates) == {"pretrain", "tune"} and all(rate > 0 for rate in estimate.rates.values())
    whole, one = (cost.count(part(study(), points), study(), small.TOY) for points in (None, [0]))
    assert estimate.seconds(whole, 4) == pytest.approx(2 * estimate.seconds(whole, 2))
    assert estimate.seconds(one, 1) < estimate.seconds(whole, 1) < 2 * estimate.seconds(one, 1)
    assert said[0] == "compiling" and any("timing" in line for line in said)


def test_without_timing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    estimate = cost.measure(part(study()), study(), small.TOY, lambda line: None, time_it=False)
    counted = cost.count(part(study()), study(), small.TOY)
    assert estimate.rates is None and estimate.seconds(counted, 1) is None and estimate.bytes(counted, 1) > 0
    assert not list(tmp_path.iterdir())


def test_one_measurement_for_all_of_a_shape():
    shape = cost.shape(part(study()), study())
    for same in (study((5,)), study(rates=(0.5,)), study(name="x", window=0.25, control="pretrain+tune")):
        assert cost.shape(part(same), same) == shape and hash(cost.shape(part(same), same)) == hash(shape)
    model = small.config().model
    model.width = 9
    for other in (study(model=model), study(eval_batch=20), study(strategy="vmap"), study(dataset="other")):
        assert cost.shape(part(other), other) != shape


def test_images_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 10)
    assert cost.free() == 10
    with pytest.raises(RoomError, match="the images of toy"):
        cost.measure(part(study()), study(), small.TOY, lambda line: None)


@pytest.mark.slow
def test_groups_of_a_stage_have_each_their_cost(monkeypatch):
    """For branches that are compiled separately, here by another batch size and by a remedy."""
    monkeypatch.setattr(autotune, "ROUND_SECONDS", 0.01)
    config = small.config(seeds=(0,))
    treated = {"after": "init", "batch_size": 32, "remedies": base.treated(l2_init={})}
    config.stages = small.branches(tune=small.stage(branches=small.branches(fresh={"after": "init"}, treated=treated)))
    parsed = study_config.parse(config)
    measured = cost.measure(part(parsed), parsed, small.TOY, lambda line: None)
    counted = cost.count(part(parsed), parsed, small.TOY)
    assert counted.runs == dict.fromkeys(("tune,1", "tune,2"), 1) and counted.finals == 2
    assert set(measured.rates) == {need.stage for need in measured.needs} == set(counted.runs)
    assert measured.seconds(counted, 2) > 0
