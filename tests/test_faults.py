"""The campaign of faults: a short one in which nothing may be lost, and campaigns that must detect deliberate bugs."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plasticity_jax.storage import checkpoints, metrics, workdir
from tests.faults import __main__ as main
from tests.faults import campaign, children, command, damage, kinds
from tests.faults.children import End, Lost
from tests.faults.scene import Injection, Reference, Scene, World, outcome, told

ROOT = Path(__file__).parents[1]
LINUX = "forkserver" in multiprocessing.get_all_start_methods() and Path("/proc/self/stat").exists()
needs_linux = pytest.mark.skipif(not LINUX, reason="processes cannot be forked and watched here")


@pytest.mark.long
@needs_linux
def test_every_kind_of_fault_once_and_nothing_is_lost(tmp_path):
    file = tmp_path / "counts.json"
    call = [sys.executable, "-m", "tests.faults", f"--count={len(kinds.KINDS)}", "--seed=5", f"--json={file}"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(file.read_text())["counts"]
    assert set(counts) >= set(kinds.KINDS) - {"full", "frozen"}
    assert sum(row["injected"] for row in counts.values()) >= len(counts)
    assert not any(row["lost"] for row in counts.values())


# A campaign that nothing can fail proves nothing.


def trust(read) -> None:
    """Read a table without verifying it."""
    metrics.read = lambda path, mark=None: read(path)


def careless(*args: object) -> None:
    """The command without resume: every start trains its stage from the beginning, and appends to the existing rows."""
    checkpoints.Checkpoints.latest = lambda *_: None
    metrics.Table._cut = lambda self: os.lseek(self._file, 0, os.SEEK_END)
    trust(metrics.read)
    command.command(*args)


def forgetful(*args: object) -> None:
    """The command that accepts a torn table as complete."""
    metrics.fits = lambda path, mark: True
    trust(metrics.read)
    command.command(*args)


def lost_by(target, kind: str, tmp_path: Path) -> list[str]:
    """The losses in three cases of one kind, where the disturbed processes are `target`."""
    world = World(children.server("tests.faults.command"))
    world.references[""] = campaign.undisturbed(world, tmp_path, "")
    broken = World(world.context, world.references, target)
    cases = [campaign.case(broken, number, 3, [kind], tmp_path / str(number), False) for number in range(3)]
    assert all(campaign.counts([case])[kind]["lost"] for case in cases if case.lost)
    return [case.lost for case in cases if case.lost]


@pytest.mark.long
@needs_linux
@pytest.mark.parametrize(("target", "kind"), [(careless, "term"), (forgetful, "metrics")])
def test_a_broken_resume_is_found(target, kind, tmp_path):
    assert lost_by(target, kind, tmp_path)


def finished(directory: Path) -> None:
    """Write the files of a finished study."""
    table = directory / "main" / "tune" / "metrics.jsonl"
    table.parent.mkdir(parents=True)
    table.write_text('{"run": "a"}\n{"run": "b"}\n')
    workdir.write_json(directory / "result.json", {"runs": [{"params_sha256": "1"}], "seconds": {"train": 2.0}})
    workdir.status(directory, status="finished", exit_code=0)


@pytest.fixture
def scene(tmp_path):
    """A scene whose directory holds the same files as the undisturbed one."""
    finished(tmp_path / "undisturbed")
    world = World(None, {"": Reference(outcome(tmp_path / "undisturbed"), 10, 1.0)})
    prepared = Scene(world, tmp_path / "scene", random.Random(0))
    finished(prepared.directory)
    return prepared


def test_the_same_rows_and_parameters_are_no_loss(scene):
    result = workdir.read_json(scene.directory / "result.json")
    workdir.write_json(scene.directory / "result.json", result | {"seconds": {"train": 9.0}})
    scene.compare()


@pytest.mark.parametrize("rows", ['{"run": "a"}\n', '{"run": "a"}\n{"run": "b"}\n{"run": "b"}\n', ""])
def test_rows_lost_or_doubled_are_a_loss(rows, scene):
    (scene.directory / "main" / "tune" / "metrics.jsonl").write_text(rows)
    with pytest.raises(Lost, match="another tables"):
        scene.compare()


def test_other_parameters_are_a_loss(scene):
    workdir.write_json(scene.directory / "result.json", {"runs": [{"params_sha256": "2"}]})
    with pytest.raises(Lost, match="another runs"):
        scene.compare()


@pytest.mark.parametrize(
    ("end", "match"),
    [
        (End(1, "Traceback (most recent call last):\nerror: x"), "a traceback"),
        (End(1, "error: a\nerror: b"), "2 lines of error"),
        (End(1, ""), "0 lines of error"),
        (End(-11, ""), "exit status -11"),
        (End(1, "error: something is odd"), "does not say what to do"),
        (End(1, "error: it is odd; delete /etc/passwd"), "not its own"),
    ],
)
def test_an_end_that_helps_nobody_is_a_loss(end, match, scene):
    scene.injected("kill", "here")
    with pytest.raises(Lost, match=match):
        scene.accept(end)


def test_a_refusal_without_a_fault_is_a_loss(scene):
    with pytest.raises(Lost, match="refused without a fault"):
        scene.accept(End(1, f"error: delete {scene.directory / 'result.json'}"))


def test_a_refusal_is_followed_and_counted(scene):
    scene.injected("result", "here")
    assert not scene.accept(End(1, f"error: {scene.directory / 'result.json'} is damaged; delete it to go on"))
    assert not (scene.directory / "result.json").exists()
    assert campaign.Case(0, scene.injections, "").of(scene.injections[0]) == "refused"


def test_where_a_line_says_what_to_delete():
    assert told("error: a is wrong; delete /a/b (then): c") == Path("/a/b")
    assert told("error: /a/b.json is damaged (no); delete it to go on") == Path("/a/b.json")
    assert told("error: /a/b.json is damaged") is None


def asleep() -> None:
    time.sleep(600)


@needs_linux
def test_a_hang_is_a_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "HUNG", 0.2)
    child = children.Child(multiprocessing.get_context("forkserver"), asleep, (), tmp_path / "log")
    with pytest.raises(Lost, match="hung"):
        child.end()
    assert not child.alive()


def test_counts_add_up():
    cases = [
        campaign.Case(0, [Injection("kill", ""), Injection("full", "", ["error: x"])], ""),
        campaign.Case(1, [Injection("kill", "")], "rows"),
    ]
    assert campaign.counts(cases) == {
        "kill": {"injected": 2, "survived": 1, "refused": 0, "lost": 1},
        "full": {"injected": 1, "survived": 0, "refused": 1, "lost": 0},
    }
    assert campaign.table(campaign.counts(cases)).splitlines()[-1].split() == ["all", "3", "1", "1", "1"]


def test_a_case_can_be_drawn_again():
    def drawn(seed: int, number: int) -> tuple:
        draw = random.Random(f"{seed}/{number}")
        return kinds.chain(list(kinds.KINDS), number, draw), draw.random()

    assert drawn(3, 8) == drawn(3, 8) != drawn(4, 8)
    assert {drawn(0, number)[0][0] for number in range(len(kinds.KINDS))} == set(kinds.KINDS)


@pytest.mark.parametrize("how", [*damage.KINDS, "tear"])
def test_damage_changes_a_file(how, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(1, 200)) + b"\n")
    before = path.read_bytes()
    assert damage.damage(path, random.Random(1), how)
    assert not path.exists() or path.read_bytes() != before


def test_an_unknown_kind_is_refused(capsys):
    with pytest.raises(SystemExit):
        main.parse(["--kinds=kill,meteor"])
    assert "there is no meteor" in capsys.readouterr().err
