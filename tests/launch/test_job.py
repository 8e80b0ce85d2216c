"""One job: what it trains, what it records of its failures, and when it gives up."""

import json
import os
from pathlib import Path

import pytest

import plasticity_jax
from plasticity_jax import experiment
from plasticity_jax.errors import BusyError, ConfigError, LabError, LostError, Preempted
from plasticity_jax.launch import attempts, job, jobs
from plasticity_jax.launch.attempts import Attempts
from plasticity_jax.parallel import multihost
from plasticity_jax.storage import workdir
from tests.support import small, swept
from tests.support.commands import call, refused


@pytest.fixture
def sweep(tmp_path):
    swept.planned(tmp_path, swept.config(seeds=(0,)))
    return tmp_path


def start(sweep: Path, which="seeds=0", tries=3) -> int:
    return job.main([f"--workdir={sweep}", f"--job={which}", f"--tries={tries}"])


def tried(sweep: Path) -> Attempts:
    return attempts.read(sweep / "study/jobs/seeds=0")


@pytest.fixture
def failing(monkeypatch):
    """Training that raises the given errors, one at each start, and then finishes."""
    errors: list = []

    def run_study(study, directory):
        if errors:
            error = errors.pop(0)
            if callable(error):
                error = error(directory)
            raise error
        workdir.write_json(directory / "result.json", {"status": "finished"})
        return {"status": "finished"}

    monkeypatch.setattr(experiment, "run_study", run_study)
    return errors


@pytest.mark.slow
def test_a_job_trains_what_main_trains(tmp_path):
    config = swept.config(grid=((swept.RATE, (0.1, 0.2)),))
    alone = plasticity_jax.run(config, tmp_path / "alone")
    swept.planned(tmp_path / "sweep", config)
    assert start(tmp_path / "sweep", "0") == 0
    directory = tmp_path / "sweep/study/jobs/seeds=0-1"
    assert small.tables(directory) == small.tables(tmp_path / "alone")
    result = json.loads((directory / "result.json").read_text())
    assert small.hashes(result) == small.hashes(alone)
    before = os.stat(directory / "result.json").st_mtime_ns
    assert start(tmp_path / "sweep") == 1  # by a name that does not exist
    assert start(tmp_path / "sweep", "seeds=0-1") == 0
    assert os.stat(directory / "result.json").st_mtime_ns == before


def test_it_gives_up_after_failures_at_one_place(sweep, failing, capsys):
    failing += [LabError("the disk\nis full"), RuntimeError("a bug"), LabError("again")]
    assert start(sweep) == 75
    assert tried(sweep) == Attempts("the start", 1, ("the disk",), False)
    assert start(sweep) == 75
    assert start(sweep) == 1
    assert tried(sweep) == Attempts("the start", 3, ("the disk", "a bug", "again"), True)
    assert "error: seeds=0: again (it gave up)" in capsys.readouterr().err
    assert start(sweep) == 1 and not failing
    assert "gave up; launch the sweep again" in capsys.readouterr().err
    attempts.reset(sweep / "study/jobs/seeds=0")
    assert start(sweep) == 0


def test_a_failure_that_only_another_process_sees_is_counted(sweep, failing, monkeypatch):
    monkeypatch.setattr(multihost, "first", lambda: False)
    failing.append(RuntimeError("no such GPU"))
    assert start(sweep) == 75
    assert (tried(sweep).tries, tried(sweep).errors) == (1, ("no such GPU",))


def test_progress_gives_new_tries(sweep, failing):
    def further(number):
        def fail(directory):
            (directory / f"main/pretrain/checkpoints/{number}").mkdir(parents=True)
            return LabError(f"failed after {number}")

        return fail

    failing += [LabError("first"), further(1), further(2), LabError("x"), LabError("y")]
    assert [start(sweep, tries=2) for _ in range(5)] == [75, 75, 75, 75, 1]
    assert tried(sweep) == Attempts("pretrain@2", 2, ("first", "failed after 1", "failed after 2", "x", "y"), True)


@pytest.mark.parametrize("error", [ConfigError("no such module"), experiment.RoomError("too large")])
def test_what_no_try_can_mend_gives_up_at_once(sweep, failing, error):
    failing.append(error)
    assert start(sweep) == 1
    assert tried(sweep) == Attempts("the start", 1, (str(error),), True)


@pytest.mark.parametrize("error", [Preempted("stopped"), KeyboardInterrupt(), BusyError("in use"), LostError("gone")])
def test_being_stopped_or_kept_out_is_no_failure(sweep, failing, error):
    failing += [LabError("once"), error, error, error, error]
    assert [start(sweep, tries=2) for _ in range(5)] == [75] * 5
    assert (tried(sweep).tries, tried(sweep).gave_up) == (1, False)
    assert start(sweep) == 0


def test_a_job_of_which_all_runs_diverged_has_failed(sweep, monkeypatch):
    monkeypatch.setattr(experiment, "run_study", lambda study, directory: {"status": "failed", "runs": []})
    assert start(sweep) == 1
    workdir.write_json(sweep / "study/jobs/seeds=0/result.json", {"status": "failed", "runs": []})
    assert start(sweep) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"place": 3}', '{"place": "a", "tries": "x"}', "\x00"])
def test_damaged_attempts_are_none(tmp_path, content):
    (tmp_path / "attempts.json").write_text(content)
    assert attempts.read(tmp_path) == Attempts()


def test_attempts_come_back(tmp_path):
    written = Attempts("tune@3", 2, ("a", "b"), True)
    attempts.write(tmp_path, written)
    assert attempts.read(tmp_path) == written
    assert json.loads((tmp_path / "attempts.json").read_text()) == {
        "place": "tune@3",
        "tries": 2,
        "errors": ["a", "b"],
        "gave_up": True,
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--workdir=nowhere", "--job=0"], "holds no sweep"),
        (["--workdir=."], "--job"),
        (["--workdir=.", "--job=0", "--tries=0"], "'0' is not an integer above 0"),
        (["--workdir=.", "--job=0", "more"], "more"),
    ],
)
def test_mistakes_take_one_line(args, message, capsys):
    refused(call(job.main, *args, capture=capsys), message)


@pytest.mark.parametrize("which", ["1", "-1", "../x", "", "study/jobs/seeds=0", "seeds=1", "\n", "²", "9" * 400])
def test_jobs_that_are_not_there(sweep, which, capsys):
    assert start(sweep, which) == 1
    err = capsys.readouterr().err
    assert "there is no job" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ".."),
        ("name", "a/b"),
        ("name", "/etc"),
        ("name", "x" * 101),
        ("name", "a\nb"),
        ("name", "$(x)"),
        ("name", 3),
        ("study", ".."),
        ("study", "../../x"),
        ("study", ""),
        ("pack", "."),
        ("points", []),
        ("points", [-1]),
        ("points", [True]),
        ("points", "0"),
        ("seeds", [0.5]),
        ("seeds", None),
        ("runs", "many"),
        ("images", -1),
        ("seconds", "1"),
        ("bytes", []),
        ("extra", 1),
    ],
)
def test_a_hostile_plan_is_refused(sweep, key, value, capsys):
    plan = json.loads((sweep / "sweep.json").read_text())
    plan["jobs"][0][key] = value
    (sweep / "sweep.json").write_text(json.dumps(plan))
    with pytest.raises(LabError) as caught:
        jobs.read(sweep)
    assert "\n" not in str(caught.value) and "sweep.json, job 0" in str(caught.value)
    assert start(sweep, "0") == 1


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 2, "jobs": []}', '{"version": 1, "jobs": {}}', "\x00"]
)
def test_a_damaged_plan_is_one_line(sweep, content):
    (sweep / "sweep.json").write_text(content)
    with pytest.raises(LabError, match=r"sweep\.json is damaged"):
        jobs.read(sweep)


def test_points_and_seeds_that_the_study_lacks(sweep, capsys):
    plan = json.loads((sweep / "sweep.json").read_text())
    for key, value in [("points", [1]), ("seeds", [1]), ("pack", "other")]:
        changed = {**plan, "jobs": [{**plan["jobs"][0], key: value}]}
        (sweep / "sweep.json").write_text(json.dumps(changed))
        assert start(sweep) == 1
        assert "no pack" in capsys.readouterr().err
