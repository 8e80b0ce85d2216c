"""The bytes of compiled programs are linear in the number of runs, and a device's free memory is read correctly."""

import functools
import types

import jax
import numpy as np
import psutil
import pytest

from plasticity_jax.parallel import memory, programs, run_axis
from plasticity_jax.runner import schedule
from tests.support.tiny import DATASET, IMAGES, MLP, RESNET, first_state, stage, task

RECORD = stage(momentum=0.9, augment="crop_flip")
COUNTS = (8, 3, 1)
EVERYTHING = schedule.plain_source(np.arange(100), DATASET.train_labels)


@functools.cache
def compiled(model, strategy, kind, count):
    """The footprint of a program for a number of runs, and the bytes of its arguments: shared ones, and per run."""
    made = programs.Programs(model, DATASET.train_images.shape[1:], strategy, 32, {}, {})
    states = run_axis.stack([first_state(model, RECORD, seed) for seed in range(count)])
    if kind == "advance":
        rows = run_axis.stack([task(RECORD, seed) for seed in range(count)]), np.full(count, 3, np.int32)
        shared = (IMAGES,)
    else:
        states, rows = states.replace(opt=()), np.ones(count, np.bool_)
        shared = EVERYTHING, (np.int32(0), np.int32(1)), IMAGES
    program = made.program(kind, RECORD if kind == "advance" else None, states, rows, *shared)
    return program.footprint, memory.size(shared), memory.size((states, rows)) // count


CASES = [
    pytest.param(MLP, "advance", id="mlp-advance"),
    pytest.param(MLP, "evaluate", id="mlp-evaluate"),
    pytest.param(RESNET, "advance", id="resnet-advance", marks=pytest.mark.long),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "kind"), CASES)
@pytest.mark.parametrize("strategy", ["map", pytest.param("vmap", marks=pytest.mark.long)])
def test_bytes_are_a_line_in_the_number_of_runs(model, kind, strategy):
    """The program for eight runs predicts those for fewer; a lone run by `map` needs less, as it has no loop."""
    footprint, fixed, per_run = compiled(model, strategy, kind, 8)
    line = memory.line(footprint, strategy, 8, fixed, per_run)
    for count in COUNTS:
        actual = compiled(model, strategy, kind, count)[0].total
        if strategy == "map" and count == 1:
            assert line(count) > actual
        else:  # some thousand bytes are allocated once, with the first run
            assert line(count) == pytest.approx(actual, rel=0.25 if count == 1 else 0.05, abs=8000)
    new = (footprint.outputs - footprint.aliased) // 8
    assert line.per_run - per_run - new == pytest.approx(new if strategy == "map" else footprint.temporaries / 8, abs=1)


def test_runs_that_take_turns_have_their_states_once():
    """Outputs replace inputs row by row: the temporaries are those of a single run."""
    (eight, _, _), (three, _, _) = (compiled(MLP, "map", "advance", count) for count in (8, 3))
    state = eight.outputs // 8
    assert eight.aliased > 0.99 * eight.outputs and eight.temporaries - three.temporaries < state


@pytest.mark.long
def test_a_line_of_turns_follows_from_one_side_by_side():
    footprint, fixed, per_run = compiled(MLP, "vmap", "advance", 8)
    guess = memory.sequential(memory.line(footprint, "vmap", 8, fixed, per_run), footprint, 8)
    actual = compiled(MLP, "map", "advance", 8)[0].total
    assert 0.85 * actual < guess(8) < 1.3 * actual


def test_a_loop_holds_its_results_twice():
    """The results of each run, and all of them stacked; and the temporaries of one run."""
    footprint, fixed, per_run = compiled(MLP, "loop", "advance", 3)
    assert footprint.outputs == compiled(MLP, "loop", "advance", 1)[0].outputs  # it was compiled for one run
    line = memory.line(footprint, "loop", 1, fixed, per_run)
    assert line == memory.Line(fixed + footprint.temporaries + footprint.code, per_run + 2 * footprint.outputs)


def test_arguments_are_counted_as_xla_counts_them():
    footprint, fixed, per_run = compiled(MLP, "map", "advance", 8)
    unused = fixed + 8 * per_run - footprint.arguments  # XLA drops unused ones, such as other optimisers' numbers
    assert 0 <= unused < 8 * memory.size(task(RECORD).hyper)
    assert footprint.aliased > 0.99 * footprint.outputs > 0  # the states are given away


def test_size_of_a_tree():
    tree = {"a": np.zeros((3, 2), np.float32), "b": jax.ShapeDtypeStruct((5,), np.uint8), "key": jax.random.key(0)}
    assert memory.size(tree) == 24 + 5 + 8
    assert memory.size(()) == 0


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 kB"), (1500, "1.5 kB"), (999_999, "1 MB"), (45.6e6, "45.6 MB"), (1.234e9, "1.23 GB"), (2e13, "20 TB")],
)
def test_text(count, text):
    assert memory.text(count) == text


# ---- what a device has ----


def device(platform, stats):
    return types.SimpleNamespace(platform=platform, memory_stats=lambda: stats)


def test_an_accelerator_counts_for_itself():
    assert memory.free(device("gpu", {"bytes_limit": 100, "bytes_in_use": 30})) == 70
    assert memory.free(device("gpu", None)) is None


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Writes the files of a system with 8,000 kB available."""
    monkeypatch.setattr(memory, "SYSTEM", tmp_path)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))

    def write(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)

    rest = "".join(f"{name}: 0 kB\n" for name in ("Buffers", "Cached", "Shmem", "Active", "Inactive"))
    write({"proc/meminfo": f"MemTotal: 16000 kB\nMemFree: 6000 kB\nMemAvailable: 8000 kB\n{rest}"})
    return write


def spare():
    return memory.free(device("cpu", None))


def test_a_cpu_has_what_the_machine_has(system):
    assert spare() == 8000 * 1024


def group(path, limit, usage, **stat):
    """The files of a control group of version 2."""
    told = "".join(f"{key} {value}\n" for key, value in {"anon": 5, **stat}.items())
    names = {"memory.max": f"{limit}\n", "memory.current": f"{usage}\n", "memory.stat": told}
    return {f"sys/fs/cgroup/{path}{name}": content for name, content in names.items()}


def test_the_tightest_control_group_counts(system):
    system({"proc/self/cgroup": "0::/batch/job7\n"})
    system(group("batch/job7/", "max", 10) | group("batch/", 5000, 3000, inactive_file=300, active_file=40))
    assert spare() == 5000 - 3000 + 340  # cached files can be evicted
    system(group("batch/job7/", 1000, 900))
    assert spare() == 100


def test_a_container_sees_its_own_group_at_the_top(system):
    system({"proc/self/cgroup": "0::/outside/name\n"} | group("", 7000, 1000))
    assert spare() == 6000


def test_control_groups_of_version_1(system):
    files = {"memory.limit_in_bytes": "9000\n", "memory.usage_in_bytes": "4000\n"}
    files["memory.stat"] = "inactive_file 1\ntotal_inactive_file 500\n"
    system({"proc/self/cgroup": "3:cpu,memory:/job\n2:cpuset:/other\n"})
    system({f"sys/fs/cgroup/memory/job/{name}": content for name, content in files.items()})
    assert spare() == 5500
