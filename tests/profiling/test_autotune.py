"""Measurements of the strategies become the right advice; a broken or slow strategy does not stop the others."""

import os
import re

import jax
import pytest

import plasticity_jax
from plasticity_jax import main
from plasticity_jax.config import spec
from plasticity_jax.errors import LabError
from plasticity_jax.parallel import programs, run_axis
from plasticity_jax.profiling import autotune
from plasticity_jax.runner import prepare
from plasticity_jax.runner.parts import Parts
from tests.support import commands, small
from tests.support.tiny import DATASET, IMAGES, MODEL, changed, same, stage, study

# ---- the race ----


class Lane:
    """Trains 100 images a step at `speed` steps per second of a simulated clock; the calls numbered in `fails` fail."""

    def __init__(self, speed, fails=()):
        self.speed = speed
        self.fails = fails
        self.calls = []

    def __call__(self, steps):
        self.calls.append(steps)
        if len(self.calls) - 1 in self.fails:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of\nmemory")
        return 100 * steps, steps / self.speed


def race(**lanes):
    said = []
    found = autotune.race(lanes, lambda line, stays: said.append(line))
    return found, said


def test_rates_are_those_of_the_rounds():
    lanes = {"map": Lane(1000.0), "cores": Lane(2500.0)}
    trials, said = race(**lanes)
    assert {name: trial.note for name, trial in trials.items()} == {"map": "", "cores": ""}
    assert trials["map"].rates == pytest.approx([100_000] * autotune.ROUNDS)
    assert trials["cores"].rates == pytest.approx([250_000] * autotune.ROUNDS)
    assert [line for line in said if "about" in line] == [
        "map: about 100,000 images/s",
        "cores: about 250,000 images/s",
    ]
    for lane in lanes.values():
        assert lane.calls[0] == 1  # a slow one costs one step
        assert lane.calls[-autotune.ROUNDS :] == [round(lane.speed * autotune.ROUND_SECONDS)] * autotune.ROUNDS


def test_the_order_changes_from_round_to_round():
    order = []

    class Noted(Lane):
        def __call__(self, steps):
            order.append(self)
            return super().__call__(steps)

    first, second, third = lanes = [Noted(1.0) for _ in range(3)]
    race(**dict(zip("abc", lanes, strict=True)))
    assert order[3:] == [first, second, third, third, second, first] * (autotune.ROUNDS // 2)


def test_a_slow_one_is_given_up_wherever_it_stands():
    for names in (["slow", "fast"], ["fast", "slow"]):
        lanes = {name: Lane({"slow": 0.1, "fast": 1.0}[name]) for name in names}
        trials, _ = race(**lanes)
        assert trials["slow"].note == "given up: 10 times slower than the best"
        assert lanes["slow"].calls == [1] and set(trials["slow"].rates) == {10.0}
        assert trials["fast"].note == "" and len(lanes["fast"].calls) == 1 + autotune.ROUNDS


def test_one_that_is_a_little_slower_is_measured():
    found, _ = race(slow=Lane(0.3), fast=Lane(1.0))
    assert found["slow"].note == ""


@pytest.mark.parametrize("at", [0, 2])
def test_a_failure_is_reported_and_harms_no_other(at):
    found, _ = race(broken=Lane(1.0, fails=[at]), whole=Lane(1.0))
    assert found["broken"] == autotune.Trial((), "failed: RESOURCE_EXHAUSTED: out of memory")
    assert len(found["whole"].rates) == autotune.ROUNDS


def test_all_may_fail():
    found, _ = race(a=Lane(1.0, fails=[0]), b=Lane(1.0, fails=[0]))
    assert [trial.rates for trial in found.values()] == [(), ()]


def test_the_table_has_every_strategy():
    trials = {
        "map": autotune.Trial((1000.0, 1400.0, 1200.0)),
        "vmap": autotune.Trial((), "failed: RESOURCE_EXHAUSTED"),
        "loop": autotune.Trial((10.0,) * 3, "given up: 120 times slower than the best"),
    }
    assert autotune.table("main/tune", trials, {"map": 3.21, "vmap": 0.0, "loop": 2.0}).splitlines() == [
        "main/tune",
        "  strategy    images/s   compiled in  range",
        "  map            1,200         3.2 s  1,000 to 1,400",
        "  vmap               -             -  failed: RESOURCE_EXHAUSTED",
        "  loop              10         2.0 s  given up: 120 times slower than the best",
    ]


# ---- the verdict ----

FAST, SLOW = [10.0, 20.0, 11.0, 10.0], [11.0, 22.0, 12.1, 11.0]  # the second round is slow for both


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (
            {"map": FAST, "cores": SLOW, "taken": SLOW},
            "; the fastest here is map (x1.10, 1.10 to 1.10 by round): --config.strategy=map",
        ),
        ({"map": SLOW, "cores": FAST, "taken": FAST}, ", the fastest here"),
        (
            {"map": [10.0] * 4, "cores": [10.2] * 4, "taken": [10.2] * 4},
            ", as good as any here (map: x1.02, 1.02 to 1.02 by round)",
        ),
        (
            {"map": [10.0] * 4, "cores": [9.9, 11, 11, 11], "taken": [9.9, 11, 11, 11]},
            ", as good as any here (map: x1.10, 0.99 to 1.10 by round)",
        ),
        ({"map": FAST, "vmap": SLOW}, ", which fails here; the fastest is map: --config.strategy=map"),
        ({}, "; no single strategy trains all packs here"),
    ],
)
def test_verdict(seconds, said):
    assert autotune.verdict("main", seconds, "auto takes cores", True) == f"main: auto takes cores{said}"


def test_of_several_packs_only_the_last_word_names_the_flag():
    line = autotune.verdict("main", {"map": FAST, "taken": SLOW}, "auto takes cores", False)
    assert "the fastest here is map" in line and "--config" not in line


def test_what_fails_in_a_part_is_out_of_the_sum():
    parts = [{"map": [1.0, 2.0], "vmap": [1.0, 1.0]}, {"map": [3.0, 3.0], "vmap": []}]
    assert autotune.add(parts) == {"map": [4.0, 5.0]}


# ---- on a study ----


RACED = [name for name in run_axis.STRATEGIES if name != "split"]  # two runs leave none of two cores idle


def entry(*plan, taken="vmap", name="main", seeds=(0, 1)):
    pack = spec.Pack(name, MODEL, (((), plan),))
    return prepare.compute(pack, study(seeds=seeds, strategy=taken), DATASET, Parts())


PRETRAIN = stage(name="pretrain", branch="pretrain", fraction=0.5, epochs=1.0)
TUNE = stage(name="tune", branch="tune", epochs=3.0)


def test_legs_of_one_program_are_measured_once():
    other = changed(TUNE, batch_size=8)
    one, two = entry(PRETRAIN, TUNE), entry(PRETRAIN, other)
    names = [
        [[times.group.name for times in groups] for groups in autotune.alike(e.timetables.values())] for e in (one, two)
    ]
    assert names == [[["tune", "pretrain"]], [["pretrain"], ["tune"]]]


def test_shares_of_the_images_weigh_the_legs(monkeypatch):
    """`map` is faster on the short group, `vmap` on the long one, and `cores` fails on one of them."""
    plan = [PRETRAIN, changed(TUNE, batch_size=8)]
    speeds = iter([{"map": 3.0, "vmap": 2.0, "cores": 9.0}, {"map": 2.0, "vmap": 2.5, "cores": 0.0}])
    trials = {0.0: autotune.Trial((), "failed: x")}
    monkeypatch.setattr(
        autotune, "race", lambda *_: {n: trials.get(v, autotune.Trial((v,) * 4)) for n, v in next(speeds).items()}
    )
    *tables, last = autotune.tune([entry(*plan, taken="map")], "auto")
    heads = [text.splitlines()[0] for text in tables]
    # 2 runs of 4 steps of 16, and of 3 epochs of 13 steps of 8.
    assert [re.search(r"\S+: 2 runs.* (\d+) %", head)[1] for head in heads] == ["17", "83"]
    old, new = 128 / 3 + 624 / 2, 128 / 2 + 624 / 2.5
    assert last == (
        f"main: auto takes map; the fastest here is vmap (x{old / new:.2f}, {old / new:.2f} to {old / new:.2f} "
        "by round): --config.strategy=vmap"
    )


def test_several_packs_are_added_up(monkeypatch):
    speeds = iter([{"map": 3.0, "vmap": 2.0}, {"map": 1.0, "vmap": 4.0}])
    monkeypatch.setattr(autotune, "race", lambda *_: {n: autotune.Trial((v,) * 4) for n, v in next(speeds).items()})
    entries = [entry(TUNE, name="a", taken="map"), entry(TUNE, name="b", taken="vmap")]
    said = [text for text in autotune.tune(entries, "auto") if "\n" not in text]
    assert said[:2] == ["a: auto takes map, the fastest here", "b: auto takes vmap, the fastest here"]
    assert said[2].startswith("all packs: auto takes map, vmap, as good as any here (vmap: x0.")


def test_where_nothing_works_an_error_follows_the_table(monkeypatch):
    monkeypatch.setattr(
        autotune, "race", lambda lanes, _: dict.fromkeys(lanes, autotune.Trial((), "failed: no memory"))
    )
    lines = autotune.tune([entry(TUNE)], "auto")
    assert next(lines).count("failed: no memory") == len(RACED)
    with pytest.raises(LabError, match="main: no strategy trains all its stages here"):
        next(lines)


@pytest.mark.slow
def test_a_lane_trains_as_many_steps_as_it_is_asked_for(monkeypatch):
    """More than an epoch and more than the stage, each time from the same networks; compilation is not timed."""
    lanes, made = autotune.lanes_of(entry(TUNE), entry(TUNE).timetables["tune"], IMAGES)
    assert set(lanes) == set(made) == set(RACED)
    alone = entry(TUNE, seeds=(0,))
    assert set(autotune.lanes_of(alone, alone.timetables["tune"], IMAGES)[0]) == set(run_axis.STRATEGIES)
    advances = []
    advance = programs.Programs.advance

    def noted(self, stage, states, rows, images):
        first = jax.device_get(states)
        after, done = advance(self, stage, states, rows, images)
        advances.append((first, jax.device_get(after), rows[1].tolist()))
        return after, done

    monkeypatch.setattr(programs.Programs, "advance", noted)
    for _ in range(2):
        shown, seconds = lanes["map"](40)
        assert shown == 2 * 40 * 16 and 0 < seconds < 30
    targets = [[n, n] for n in (0, 0, 7, 14, 21, 28, 35, 40)]  # an epoch has 7 steps
    assert [until for _, _, until in advances] == 2 * targets
    calls = len(targets)
    assert same(advances[0][0], advances[calls][0])
    assert same(advances[calls - 1][1], advances[-1][1])
    assert not same(advances[0][0].params, advances[-1][1].params)
    assert advances[0][0].params["head"]["kernel"].any() and not same(
        *(run_axis.take(advances[0][0].params, i) for i in (0, 1))
    )
    assert made["map"].compiled == 1 and made["vmap"].compiled == 0


@pytest.mark.slow
def test_a_strategy_that_runs_out_of_memory(monkeypatch, compile_anew):
    compile_over = run_axis.compile_over

    def failing(fn, strategy, *args, **options):
        if strategy == "vmap":
            raise RuntimeError("RESOURCE_EXHAUSTED: 99 GiB")
        return compile_over(fn, strategy, *args, **options)

    monkeypatch.setattr(run_axis, "compile_over", failing)
    monkeypatch.setattr(run_axis, "STRATEGIES", ("map", "vmap"))
    monkeypatch.setattr(autotune, "ROUND_SECONDS", 0.001)
    shown, last = autotune.tune([entry(TUNE)], "vmap")
    assert "  vmap               -             -  failed: RESOURCE_EXHAUSTED: 99 GiB" in shown
    assert last.startswith("main: the config takes vmap, which fails here; the fastest is ")


# ---- from outside ----

CONFIG = """
from plasticity_jax.configs.base import base, optimiser, stage

def get_config():
    config = base()
    config.dataset, config.seeds, config.control = "digits", (0, 1), "train"
    config.model.name = "logistic"
    config.stages.train = stage(epochs=1, batch_size=64, optim=optimiser("sgd"))
    return config
"""


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("raced", [("map", "vmap", "cores"), pytest.param(run_axis.STRATEGIES, marks=pytest.mark.long)])
def test_the_command(raced, tmp_path, monkeypatch, capsys):
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.setattr(autotune, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(run_axis, "STRATEGIES", raced)
    flags = "--config=config.py", "--autotune"
    status, out, err = commands.call(main.main, *flags, capture=capsys, directory=tmp_path)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[2:-1]] == [name for name in raced if name in RACED]
    assert re.match(
        r"main: auto takes (cores|vmap)(, the fastest here|, as good as any here|; the fastest here is \w+ )",
        out.splitlines()[-1],
    )
    for strategy in set(raced) & set(RACED):
        assert re.search(rf"^main/train  {strategy}: about [\d,]+ images/s$", err, re.MULTILINE)
    assert os.listdir(tmp_path) == ["config.py"]


@pytest.mark.slow
def test_from_python_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(autotune, "ROUND_SECONDS", 0.001)
    monkeypatch.setattr(run_axis, "STRATEGIES", ("map",))
    given = {"dataset": small.TOY, "model": small.Net()}
    config = small.single()
    config.strategy = "map"
    result = plasticity_jax.run(config, tmp_path / "new", **given, autotune=True)
    assert result == {} and not (tmp_path / "new").exists()
    out = capsys.readouterr().out
    assert "main/train: 2 runs" in out
    assert out.endswith("main: the config takes map, the fastest here\n")
