"""Runs of Weights & Biases contain each row of the table exactly once, also after restarts."""

import math
import sys
import time
from types import SimpleNamespace

import pytest

from plasticity_jax import analysis
from plasticity_jax.errors import LabError, WorkdirError
from plasticity_jax.storage import workdir
from plasticity_jax.storage.tensorboard import tag
from plasticity_jax.storage.wandb import PROJECT, Runs, group
from tests.support import small


def row(step, value, run="fresh/seed0", metric="test_accuracy", stage="tune", **hparams):
    place = {"run": run, "seed": 0, "branch": "fresh", "hparams": hparams, "stage": stage, "epoch": step / 10}
    return {**place, "step": step, "metric": metric, "value": value}


class Service:
    """Simulates what W&B stores: {id of a run: its keywords and history}; it ignores rows without a later step."""

    class Error(Exception):
        pass

    def __init__(self):
        self.runs, self.open, self.refuses = {}, set(), ""

    def Settings(self, **settings):
        return SimpleNamespace(**settings)

    def init(self, id, **keywords):
        if self.refuses:
            raise self.Error(self.refuses)
        assert id not in self.open and keywords["resume"] == "allow" and keywords["reinit"] == "create_new"
        self.open.add(id)
        run = self.runs.setdefault(id, SimpleNamespace(history=[], axes={}, step=-1, ignored=0, **keywords))

        def log(values, step):
            run.ignored += step <= run.step
            run.history += [values] * (step > run.step)
            run.step = max(step, run.step)

        return SimpleNamespace(
            log=log,
            define_metric=lambda name, step_metric: run.axes.update({name: step_metric}),
            finish=lambda: self.open.remove(id),
        )

    def named(self):
        """{name of a run: the run}; names are unique."""
        names = {run.name: run for run in self.runs.values()}
        assert len(names) == len(self.runs)
        return names


@pytest.fixture
def service(monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    monkeypatch.setenv(PROJECT, "plasticity")
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    return service


def test_rows_of_a_run_and_a_step_are_one_record(service, tmp_path):
    runs = Runs(tmp_path / "figure1", "main", [row(0, 10.5)])
    other = row(5, None, run="fresh,lr=0.1/seed12", metric="weight_norm/head", lr=0.1)
    runs.append([row(5, 50.25), row(5, 0.5, metric="test_loss"), other])
    runs.append([])
    runs.close()
    by_run = service.named()
    assert by_run["fresh/seed0"].history == [
        {"step/tune": 0, "epoch/tune": 0.0, "accuracy/test/tune": 10.5},
        {"step/tune": 5, "epoch/tune": 0.5, "accuracy/test/tune": 50.25, "loss/test/tune": 0.5},
    ]
    (lost,) = by_run["fresh,lr=0.1/seed12"].history
    assert math.isnan(lost["network/weight_norm/head/tune"])
    assert by_run["fresh,lr=0.1/seed12"].config == {"pack": "main", "branch": "fresh", "seed": 0, "lr": 0.1}
    assert by_run["fresh/seed0"].axes["loss/test/tune"] == "step/tune"
    assert {(run.project, run.group) for run in by_run.values()} == {("plasticity", "figure1")}
    assert not service.open


@pytest.mark.parametrize("killed", [False, True])
def test_a_restart_continues_the_runs_and_doubles_nothing(killed, service, tmp_path):
    rows = [row(step, float(step)) for step in range(4)]
    runs = Runs(tmp_path, "main", rows[:1])
    runs.append(rows[1:3])
    for so_far in (rows[:2], [], rows[:3]):  # the rows of the table that survive a kill
        if killed:
            service.open.clear()
        else:
            runs.close()
        runs = Runs(tmp_path, "main", so_far)
        runs.append(rows[len(so_far) : 3])  # measured again
    runs.append(rows[3:])
    runs.close()
    (run,) = service.runs.values()
    assert [record["accuracy/test/tune"] for record in run.history] == [0.0, 1.0, 2.0, 3.0]
    assert run.ignored == (9 if killed else 0)  # sent again, since nobody knows whether they were stored


def test_the_stages_of_a_run_follow_each_other(service, tmp_path):
    for stage in ("first", "then", "last"):
        for _ in range(2):
            Runs(tmp_path, "main", [row(step, float(step), stage=stage) for step in (0, 6)]).close()
    (run,) = service.runs.values()
    assert [record["step/then"] for record in run.history if "step/then" in record] == [0, 6]
    assert (
        len(run.history) == 6 and not run.ignored and set(run.axes.values()) == {"step/first", "step/then", "step/last"}
    )


def test_runs_of_two_packs_or_directories_are_others(service, tmp_path):
    for directory, pack in [("a", "main"), ("a", "width=8"), ("b", "main")]:
        Runs(tmp_path / directory, pack, [row(0, 1.0)]).close()
    assert sorted((run.group, run.name) for run in service.runs.values()) == [
        ("a", "fresh/seed0"),
        ("a", "width=8/fresh/seed0"),
        ("b", "fresh/seed0"),
    ]
    assert [len(run.history) for run in service.runs.values()] == [1, 1, 1]


def test_jobs_of_a_study_are_one_group(tmp_path, service, monkeypatch):
    assert group(tmp_path / "paper" / "resets" / "jobs" / "main,seeds=0-4") == "paper/resets"
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    Runs(tmp_path, "main", [row(0, 1.0)])
    assert [run.group for run in service.runs.values()] == ["mine"]


@pytest.mark.parametrize("text", ["", "[]", '{"study": "a"}', '{"study": "a", "sent": {"r": 3}}'])
def test_where_the_note_of_what_was_sent_is_damaged_all_goes_to_new_runs(text, service, tmp_path):
    Runs(tmp_path, "main", [row(0, 1.0)]).close()
    (tmp_path / "wandb.json").write_text(text)
    Runs(tmp_path, "main", [row(0, 1.0)]).close()
    assert [len(run.history) for run in service.runs.values()] == [1, 1]


def test_what_goes_wrong_is_one_line(service, tmp_path, monkeypatch):
    service.refuses = "api_key not configured\n(no-tty)"
    with pytest.raises(LabError, match=r"PLASTICITY_WANDB=plasticity: api_key not configured \(no-tty\) \(WANDB_MODE"):
        Runs(tmp_path, "main", [row(0, 1.0)])
    service.refuses = ""
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match=r"cannot make"):
        Runs(tmp_path / "file", "main", [row(0, 1.0)])
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(LabError, match=r"wandb is not installed; pip install plasticity_jax\[wandb\]"):
        Runs(tmp_path, "main", [])


def test_a_study_shows_what_its_tables_hold(service, tmp_path):
    config = small.single(steps=4)
    config.grid = (("model.width", (4, 8)),)
    small.run(config, tmp_path)
    table, runs = analysis.load(tmp_path), service.named()
    assert {
        (f"{row.pack}/{row.run}", tag(row.metric, row.stage), row.step): row.value for row in table.itertuples()
    } == {
        (name, key, record[f"step/{key.rpartition('/')[2]}"]): value
        for name, run in runs.items()
        for record in run.history
        for key, value in record.items()
        if not key.startswith(("step/", "epoch/"))
    }
    assert set(table.pack) == {"width=4", "width=8"} and not service.open
    assert {run.config["width"] for run in runs.values()} == {4, 8}


def test_without_a_project_nothing_is_sent(service, tmp_path, monkeypatch):
    monkeypatch.delenv(PROJECT)
    small.run(small.single(steps=2), tmp_path)
    assert not service.runs and not (tmp_path / "wandb.json").exists()


def records(path):
    """The records of a file that W&B wrote offline: LevelDB's log format after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last
            yield Record.FromString(parts)
            parts = b""


@pytest.mark.long  # seconds for the service of W&B; needs the extra `wandb`
def test_offline_runs_hold_the_rows(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for key, value in {PROJECT: "plasticity", "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(key, value)
    start, seeds = [row(0, 1 / 3)], [row(5, None), row(5, 2.0, run="fresh/seed1", lr=0.1)]
    for rows in (start, start + seeds):
        Runs(tmp_path / "study", "main", rows).close()
        time.sleep(1.1)  # W&B names its files by the second
    workdir.check_links(tmp_path / "study")  # accepts W&B's links, some of which lead outside
    ids, history = {}, {}
    for path in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        name = ""
        for record in records(path):
            if record.WhichOneof("record_type") == "run":
                name = record.run.display_name
                ids.setdefault(name, set()).add((record.run.run_id, record.run.run_group, record.run.project))
            if record.WhichOneof("record_type") == "history":
                items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                if "step/tune" in items:
                    history.setdefault(name, []).append((items["step/tune"], items["accuracy/test/tune"]))
    assert history == {"fresh/seed0": [("0", str(1 / 3)), ("5", "NaN")], "fresh/seed1": [("5", "2")]}
    assert all(len(each) == 1 and next(iter(each))[1:] == ("study", "plasticity") for each in ids.values())
