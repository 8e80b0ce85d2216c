"""The benchmark measures what it says: formulas, turns, the channel to PyTorch, and a small complete pass."""

import ast
import builtins
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from plasticity_jax import errors, models
from plasticity_jax.config import spec
from plasticity_jax.parallel import run_axis
from plasticity_jax.profiling import autotune
from plasticity_jax.training import state
from tests.benchmarks import __main__ as command
from tests.benchmarks import (
    breakdown,
    cases,
    channel,
    flops,
    ours,
    overhead,
    places,
    plans,
    remedies,
    rounds,
    share,
    start,
    table,
)

ROOT = Path(__file__).parent.parent
# A process with the protocol of `peer`: it trains 1000 steps per second, and records its requests.
FAKE = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    open(sys.argv[0] + ".log", "a").write(line)
    print(json.dumps({
        "about": {"version": "fake", "threads": 2, "device": "cpu"},
        "build": {"parameters": PARAMETERS, "seconds": 0.5},
        "train": {"seconds": 1e-3 * asked.get("steps", 0), "loss": 1.0},
        "fail": {"error": "RuntimeError: out of memory"},
        "babble": "hello",
    }[asked["do"]]), flush=True)
    if asked["do"] == "babble":
        sys.exit(3)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Replaces PyTorch's process by the one above; gives the file in which it records its requests."""

    def make(parameters: int = 1) -> Path:
        script = tmp_path / "fake.py"
        script.write_text(FAKE.replace("PARAMETERS", str(parameters)))
        monkeypatch.setattr(channel, "SCRIPT", script)
        return tmp_path / "fake.py.log"

    return make


@pytest.fixture
def no_torch(tmp_path, monkeypatch):
    """PyTorch is missing, also where it is installed."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "torch.py").write_text("raise ImportError('there is none')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'hidden'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.fixture
def only_torch(tmp_path):
    """An interpreter without any package except a stand-in for PyTorch that imports the modules of the real one."""
    (tmp_path / "packages" / "torch").mkdir(parents=True)
    text = (
        "import cProfile, pathlib, sys\n__version__ = 'path ' + str([path for path in sys.path if 'tests' in path])\n"
    )
    text += "class cuda:\n    is_available = staticmethod(lambda: False)\nget_num_threads = lambda: 1\n"
    (tmp_path / "packages" / "torch" / "__init__.py").write_text(text)
    python = tmp_path / "python"
    path = shlex.quote(str(tmp_path / "packages"))
    python.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {shlex.quote(sys.executable)} -S -s "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_an_interpreter_with_nothing_but_pytorch_is_enough(only_torch):
    bare = subprocess.run([only_torch, "-c", "import jax"], capture_output=True, text=True)
    assert "No module named 'jax'" in bare.stderr
    with channel.opened(only_torch) as peer:
        assert peer.ask(do="about") == {"version": "path []", "threads": 1, "device": "cpu"}


# ---- arithmetic ----


def test_arithmetic_of_resnet_18():
    assert sum(flops.multiply_adds(64, "cifar")) == pytest.approx(0.556e9, rel=2e-3)
    assert flops.training(64, "cifar") == pytest.approx(3.33e9, rel=1e-3)


@pytest.mark.parametrize("stem", models.STEMS)
@pytest.mark.parametrize(("depth", "width", "side"), [(2, 4, 32), (1, 3, 9)])
def test_arithmetic_is_that_of_the_model(stem, depth, width, side):
    """Every kernel counts once for each position of the result that the model itself reports."""
    network = models.build(spec.Model("resnet", depth, width, stem, "batch", "float32", "relu", 0.0, (), False), 10)
    params, stats = jax.eval_shape(lambda: state.init_network(network, jax.random.key(0), (side, side, 3)))
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = {"params": params, "batch_stats": stats}
    _, features = jax.eval_shape(lambda v, x: network.apply(v, x, train=False), variables, images)
    counts = [params["head"]["kernel"].size]
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        names = [entry.key for entry in path]
        if names[-1] == "kernel" and names[0] != "head":
            counts.append(leaf.size * features["/".join(names[:-2])].size // leaf.shape[-1])
    assert sorted(counts) == sorted(flops.multiply_adds(width, stem, depth, side))
    first = params["stem"]["conv"]["kernel"].size * features["stem"].size // width
    assert flops.training(width, stem, depth=depth, side=side) == 2 * (3 * sum(counts) - first)


# ---- turns ----


def test_a_machine_that_slows_down_changes_rates_but_no_ratio(monkeypatch):
    monkeypatch.setattr(rounds, "REST", 0.0)
    order, ticks = [], []

    def side(name, rate):
        def measured():
            order.append(name)
            return rate / 2 ** len(ticks)  # half as fast in every round

        return measured

    rates = rounds.interleave(
        {"a": side("a", 8.0), "b": side("b", 2.0), "c": side("c", 1.0)}, 3, lambda: ticks.append(1)
    )
    assert "".join(order) == "abccbaabc" and len(ticks) == 3
    assert rates["a"] == [8.0, 4.0, 2.0]
    assert rounds.ratio(rates, "a", "b") == {"median": 4.0, "low": 4.0, "high": 4.0}
    assert rounds.spread(rates["b"]) == {"median": 1.0, "low": 0.5, "high": 2.0}


def test_steps_fill_the_time_and_the_first_call_is_not_trusted():
    taken = []

    def train(steps):
        taken.append(steps)
        return 100.0 if len(taken) == 1 else 0.01 * steps

    assert rounds.steps_for(train, 2.0) == 200
    assert taken == [1, 1, 50]
    assert rounds.steps_for(lambda steps: 9.0 * steps, 2.0) == 1


def test_side_counts_images():
    plan = plans.quick()
    assert cases.side(lambda steps: 0.5 * steps, 64, plan)() == pytest.approx(128)


# ---- plans ----


@pytest.mark.parametrize("make", [plans.cpu, plans.gpu, plans.quick])
def test_a_case_begins_with_the_run_alone(make):
    plan = make()
    assert plan.growth in {case.name for case in plan.cases}
    for case in plan.cases:
        assert case.points[0] == plans.Point(1, run_axis.choose("auto", "resnet", 1))
        assert len(set(case.points)) == len(case.points) > 1
        assert {point.strategy for point in case.points} <= set(run_axis.STRATEGIES)


def test_strategies_that_are_asked_for_replace_the_others():
    (case,) = plans.quick(["vmap", "loop"]).cases
    assert [point.name for point in case.points] == ["1 map", "2 vmap", "2 loop"]


def test_a_peer_that_breaks_off_ends_the_benchmark_with_one_line(monkeypatch, capsys):
    def breaks(*_):
        raise channel.PeerError("the process of PyTorch ended (status -9)")

    monkeypatch.setattr(command, "measure", breaks)
    assert command.main(["--quick"]) == 1
    assert capsys.readouterr().err == "error: the process of PyTorch ended (status -9)\n"


def test_growth_is_per_further_run_of_the_same_strategy():
    def row(runs, strategy, bytes, ratio):
        speed = {"median": ratio}
        return {"runs": runs, "strategy": strategy, "bytes": bytes, "devices": 1, "of_one_run": speed}

    rows = [row(1, "map", 100, 1.0), row(8, "map", 170, 2.0), row(8, "vmap", 900, 4.0), {"error": "no"}]
    rows.append(row(32, "map", 410, 1.6))
    entries = cases.growth({"rows": rows})
    assert [(e["runs"], e["time"], e["further_run_bytes"]) for e in entries] == [(8, 4, 10), (8, 2, None), (32, 20, 10)]


# ---- the way to PyTorch ----


def test_requests_and_answers(fake):
    log = fake(7)
    with channel.opened(sys.executable) as peer:
        assert peer.ask(do="about")["version"] == "fake"
        assert peer.ask(do="build", width=4)["parameters"] == 7
        assert peer.train("eager", 250) == 0.25
        with pytest.raises(channel.PeerError, match="^RuntimeError: out of memory$"):
            peer.ask(do="fail")
        assert peer.train("eager", 1) == 1e-3  # it continues after an error
        with pytest.raises(channel.PeerError, match="""answered '"hello"'"""):
            peer.ask(do="babble")
        with pytest.raises(channel.PeerError, match="ended .status 3"):
            peer.ask(do="about")
    assert peer.process.poll() is not None
    asked = [json.loads(line)["do"] for line in log.read_text().splitlines()]
    assert asked == ["about", "build", "train", "fail", "train", "babble"]


def test_an_interpreter_that_is_not_there(tmp_path):
    with pytest.raises(channel.PeerError, match="No such file .*--torch_python"), channel.opened(f"{tmp_path}/python"):
        pass


def test_the_other_side_says_that_pytorch_is_missing(no_torch):
    with channel.opened(sys.executable) as peer:
        for _ in range(2):
            with pytest.raises(channel.PeerError, match="^PyTorch is missing: there is none$"):
                peer.ask(do="about")


def test_the_other_side_needs_only_torch():
    tree = ast.parse(channel.SCRIPT.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - {"torch"} <= sys.stdlib_module_names


@pytest.mark.parametrize("stem", models.STEMS)
def test_pytorch_trains_the_same_network(stem):
    pytest.importorskip("torch")
    network = models.build(spec.Model("resnet", 1, 4, stem, "batch", "float32", "relu", 0.0, (), False), 10)
    params, _ = jax.eval_shape(lambda: state.init_network(network, jax.random.key(0), (8, 8, 3)))
    asked = dict(depth=1, width=4, stem=stem, side=8, batch=8, classes=10, dtype="float32", mode="eager")
    with channel.opened(sys.executable) as peer:
        built = peer.ask(do="build", device="cpu", threads=1, **asked)
        losses = [peer.ask(do="train", mode="eager", steps=10)["loss"] for _ in range(3)]
    assert built["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert losses[0] > losses[2]


# ---- our side ----


@pytest.mark.slow
def test_a_program_trains_as_many_steps_as_asked_and_its_memory_is_counted():
    plan = plans.Plan((), (), 1, 0.0, 8, 8, 20, 64, "", "")
    dataset = ours.noise(plan)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(ours, "MODEL", "mlp")
        programs = {
            strategy: ours.point(plan, plans.Case(4, "cifar", "float32", (), 1), plans.Point(3, strategy), dataset)
            for strategy in ("map", "loop")
        }
    for built in programs.values():
        assert built.train(7) > 0  # more than the 3 steps of an epoch, in calls of an epoch each
        assert (built.step_images, built.devices) == (24, 1)
        assert built.parameters == 8 * 8 * 3 * 4 + 4 + 4 * 10 + 10
    weights = 3 * programs["map"].parameters * 4  # parameters and two moments of Adam, float32
    assert weights < programs["map"].run_bytes < programs["map"].bytes
    assert programs["map"].bytes == pytest.approx(3 * programs["map"].run_bytes + dataset.train_images.nbytes)
    assert programs["loop"].bytes is None and programs["loop"].run_bytes is None


def test_shares_of_a_wall_clock(tmp_path):
    seconds = {"train": 5.0, "evaluate": 2.0, "compile": 1.0, "total": 9.5}
    (tmp_path / "result.json").write_text(json.dumps({"seconds": seconds}))
    assert share.shares(tmp_path, 10.0) == pytest.approx(
        {"train": 0.5, "evaluate": 0.2, "compile": 0.1, "waiting": 0.2}
    )


# ---- the command ----


def test_mistakes_are_one_line(capsys):
    with pytest.raises(SystemExit):
        command.parse(["--strategies=map,pmap"])
    assert "there is no pmap; choose of map" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.parse(["--rounds=0"])


def test_without_a_gpu_it_says_so(capsys):
    assert command.main(["--gpu"]) == 1
    assert capsys.readouterr().err == "error: --gpu: jax finds no GPU here, only cpu\n"


def test_a_network_that_differs_from_pytorchs_is_not_compared(fake):
    fake(1)
    with channel.opened(sys.executable) as peer:
        entry = cases.torch_entry(plans.quick().cases[0], plans.quick(), "eager", peer, {2})
    assert entry == {"error": "PyTorch's network has 1 parameters, ours [2]"}


def test_a_point_that_fails_leaves_the_others(monkeypatch):
    def fails(plan, case, point, dataset):
        if point.strategy == "vmap":
            raise errors.LabError("too large")
        return ours.Built(lambda steps: 0.01 * steps, 8, 1.0, None, None, 5, 1, None)

    monkeypatch.setattr(cases, "ours", types.SimpleNamespace(point=fails, Built=ours.Built))
    plan = plans.quick(["map", "vmap"])
    ticks = []
    entry = cases.measure(plan.cases[0], plan, None, None, ticks.append)
    assert [row.get("error") for row in entry["rows"]] == [None, None, "too large"]
    assert ticks == ["1 map", "2 map", "2 vmap", "round", "round", "round"]


QUICK = ("--quick", "--strategies=map")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What a quick pass writes and prints, with a peer that is not PyTorch."""
    directory = tmp_path_factory.mktemp("quick")
    fake = directory / "fake.py"
    (network,) = [models.build(spec.Model("resnet", 1, 4, "cifar", "batch", "float32", "relu", 0.0, (), False), 10)]
    params, _ = jax.eval_shape(lambda: state.init_network(network, jax.random.key(0), (8, 8, 3)))
    fake.write_text(FAKE.replace("PARAMETERS", str(sum(leaf.size for leaf in jax.tree.leaves(params)))))
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "SCRIPT", fake)
        patch.setattr(builtins, "print", lambda *lines, **_: printed.extend(map(str, lines)))
        assert command.main([*QUICK, f"--json={directory / 'found.json'}"]) == 0
    return json.loads((directory / "found.json").read_text()), printed[-1]


@pytest.mark.long
def test_a_quick_pass_has_every_number(measured):
    report, _ = measured
    assert set(report) == {"plan", "machine", "torch", "real", "cases", "growth"}
    (case,) = report["cases"]
    alone, two = case["rows"]
    for row in (alone, two):
        assert {"width", "depth", "stem", "dtype", "runs", "strategy"} < set(row)
        for key in ("flops", "compile_seconds", "bytes", "run_bytes", "step_images", "parameters", "devices"):
            assert row[key] > 0, key
        for spread in (row["images_per_second"], row["of_one_run"], row["of_torch"]["eager"], row["of_matmul"]):
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert alone["of_one_run"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert (alone["step_images"], two["step_images"]) == (8, 16)
    assert case["torch"]["eager"]["images_per_second"]["median"] == pytest.approx(8000)  # 8 images, 1000 steps a second
    ratios = [ours / 8000 for ours in case["rounds"]["2 map"]]
    assert two["of_torch"]["eager"]["low"] == pytest.approx(min(ratios))
    assert two["flops"] == pytest.approx(case["flops_per_image"] * two["images_per_second"]["median"])
    assert case["flops_per_image"] == flops.training(4, "cifar", depth=1, side=8)
    assert two["of_matmul"]["high"] < 1
    (growth,) = report["growth"]
    assert growth["further_run_bytes"] == two["bytes"] - alone["bytes"] > 0


@pytest.mark.long
def test_a_quick_pass_looks_into_a_real_run(measured):
    real = measured[0]["real"]
    assert {"train", "evaluate", "compile", "checkpoint", "records", "begin", "waiting"} <= set(real["shares"])
    assert sum(real["shares"].values()) == pytest.approx(1)
    assert real["images"] == (2 + 4) * 4 * 64  # two runs pretrain, four tune
    assert 0 < real["bare_seconds"] < real["wall_seconds"] and real["of_bare"] > 0


@pytest.mark.long
def test_a_quick_pass_prints_its_table(measured):
    found, printed = measured
    assert printed == table.text(found)


def test_the_table_says_what_it_is():
    """Here for the numbers in the README of the benchmark."""
    printed = table.text(json.loads((Path(command.__file__).parent / "cpu.json").read_text()))
    assert all(len(line) <= 130 for line in printed.splitlines() if "real run" not in line)
    for text in ("1 map", "4 map", "torch eager", "1.00 [1.00, 1.00]", "growth", "real run", table.UNMEASURED):
        assert text in printed


@pytest.mark.long
def test_without_pytorch_all_else_is_measured(no_torch, monkeypatch, capsys, tmp_path):
    plan = plans.quick(["map"])
    monkeypatch.setattr(ours, "MODEL", "mlp")  # compiles at once
    monkeypatch.setattr(plans, "quick", lambda strategies: plan)
    assert command.main(["--quick", "--real=", f"--json={tmp_path / 'found.json'}"]) == 0
    printed = capsys.readouterr()
    assert printed.out == table.text(json.loads((tmp_path / "found.json").read_text())) + "\n"
    assert "PyTorch is missing: there is none; all else is measured" in printed.out
    assert "torch eager:" not in printed.out and "2 map" in printed.out


@pytest.mark.long
def test_the_command_starts():
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--torch_python" in done.stdout


def test_operations_are_of_a_part():
    program = """
  %ynn_fusion.1 = f32[128,8,8,16]{3,2,1,0} fusion(%a), metadata={op_name="jit(f)/jvp(ResNet)/stem/conv/conv_general_dilated"}
  ROOT %copy.2 = f32[8,4]{1,0} copy(%b), metadata={op_name="x/transpose(jvp(ResNet))/module2/conv1/transpose"}
  %add.3 = u8[7]{0} add(%c, %d), metadata={op_name="x/transpose(jvp(ResNet))/norm/reduce_sum"}
  %adam.4 = f32[] add(%c, %d)
"""  # noqa: E501
    assert breakdown.operations(program) == {
        "ynn_fusion.1": ("products of convolutions, forward", 4 * 128 * 8 * 8 * 16),
        "copy.2": ("layouts for kernel gradients", 4 * 32),
        "add.3": ("normalisation, ReLU, pooling, backward", 7),
        "adam.4": ("data, optimiser, copies", 4),
    }


@pytest.mark.long
def test_the_profile_finds_most_of_a_step():
    whole, parts = breakdown.profile(4, "imagenet", 5)
    assert {f"{breakdown.PRODUCTS}, forward", f"{breakdown.PRODUCTS}, backward"} <= set(parts)
    assert 0.5 * whole < sum(seconds for seconds, _ in parts.values()) < 3 * whole
    assert "floor" in breakdown.table(whole, parts, 1e9, 1e11, 1e10)


@pytest.mark.long
def test_the_start_ends_behind_the_first_step():
    arguments = ["--config=configs/multistage.py:digits", "--config.model.name=mlp", "--config.seeds=0"]
    spent, clock = start.seconds(arguments)
    assert clock["train"] > 0 and clock["compile"] > 0 and sum(clock.values()) < spent


def test_a_start_without_a_step_is_an_error(monkeypatch):
    def refuses(call, **_):
        return subprocess.CompletedProcess(call, 1, "", "error: --config=nowhere.py: there is no such file\n")

    monkeypatch.setattr(subprocess, "run", refuses)
    with pytest.raises(RuntimeError, match="no step was taken: .*--config=nowhere.py: there is no such file"):
        start.seconds(["--config=nowhere.py"])


def test_overheads_follow_from_seconds_and_intervals():
    part = overhead.Stage("tune", 1000.0, 10, 2, evaluate=20.0, records=0.5, checkpoint=0.1, keep=1.0)
    shares = overhead.shares([part, part], status=0.01, launch=4.0, checkpoint_seconds=10.0)
    assert shares["checkpoint"] == pytest.approx((2 * 1200 / 10 * 0.1 + 4) / 2000)
    assert shares["records"] == pytest.approx(10 / 2000) and shares["evaluate"] == pytest.approx(400 / 2000)
    assert shares["launch"] == pytest.approx(4 / 2000) and shares["status"] == pytest.approx(240 * 0.01 / 2000)
    assert shares["together"] == pytest.approx(sum(shares[kind] for kind in overhead.TOGETHER))
    slow = overhead.shares([dataclasses.replace(part, checkpoint=1.0, keep=0.0)], 0.0, 0.0, 10.0)
    assert slow["checkpoint"] == pytest.approx(1200 / 50 / 1000)  # no more often than every 50 times as long


@pytest.mark.long
def test_overheads_are_measured(tmp_path, capsys):
    file = tmp_path / "overhead.json"
    arguments = ["--config=configs/multistage.py:digits", "--config.model.name=mlp", "--config.seeds=0"]
    assert overhead.main([*arguments, "--steps=3", f"--json={file}"]) == 0
    report = json.loads(file.read_text())
    assert report["launches"]["cold"]["compile"] > report["launches"]["warm"]["compile"]
    assert [stage["name"] for stage in report["stages"]] == ["pretrain", "tune"]
    assert all(value > 0 for stage in report["stages"] for key, value in stage.items() if key != "name")
    assert report["stages"][1]["evaluations"] > 10  # of the whole study, not of the cut one
    assert "together" in capsys.readouterr().out


def test_what_overheads_cost_is_a_line_if_it_cannot_be_run(capsys):
    with pytest.raises(SystemExit):
        overhead.main(["--config=nowhere.py"])
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.long
def test_every_place_of_images_is_measured_and_gives_the_same_bits(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    asked = ["--images", "2000", "--epochs", "0.1", "--places", "host,disk", "--data_dir", str(tmp_path)]
    assert places.main(asked) == 0
    host, disk, same = [
        line for line in capsys.readouterr().out.splitlines() if "% of training" in line or "bits" in line
    ]
    assert host.startswith("host") and disk.startswith("disk") and same == "the same bits"


def test_times_of_remedies_are_relative_to_none_round_by_round():
    taken = {"warm": [1.0, 2.0, 4.0], "redo": [1.5, 2.5, 8.0]}
    assert remedies.table(taken, {"redo": ["redo"], "warm": ["fresh", "warm"]}).splitlines()[2:] == [
        "| `fresh`, `warm` | 1 |",
        "| `redo` | 1.50 [1.25, 2.00] |",
    ]


@pytest.mark.slow
def test_every_remedy_of_a_protocol_is_timed(capsys, monkeypatch):
    monkeypatch.setattr(autotune, "ROUND_SECONDS", 0.01)
    arg = "smoke,protocol=pixels,remedies=l2_init+shrink_perturb"
    assert remedies.main(["--config", arg, "--rounds", "1"]) == 0
    rows = [row.split("|")[1:3] for row in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["`fresh`, `warm`, `shrink_perturb`", "`l2_init`"]
    assert float(rows[1][1].split()[0]) > 0
