"""Files from others: nothing in them is executed, and no path in them leads outside their directory."""

import ast
import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity_jax import analysis, study_config
from plasticity_jax.analysis import collect, facts, figures, scale, studies, verify
from plasticity_jax.analysis.report import report
from plasticity_jax.config import parse
from plasticity_jax.config.plan import unfold
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import LabError, WorkdirError
from plasticity_jax.launch import attempts, job, job_states, jobs, local, planner
from plasticity_jax.runner import saver, stage_loop
from plasticity_jax.storage import environment, metrics, networks, tensorboard, workdir
from tests.support import small, swept, synthetic
from tests.support.sources import holds_for_all, tree

ROOT = Path(__file__).parents[2]
OURS = sorted(
    path for folder in ("plasticity_jax", "analysis", "launch", "configs") for path in (ROOT / folder).rglob("*.py")
)
RUNS_CODE = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "torch", "yaml"}
DEEP = "[" * 200_000

# Nothing is executed.


def test_no_module_reads_what_could_run_code():
    holds_for_all(reads_nothing_that_could_run_code, OURS)


def reads_nothing_that_could_run_code(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & RUNS_CODE
        elif isinstance(node, ast.ImportFrom):
            assert str(node.module).split(".")[0] not in RUNS_CODE
        elif isinstance(node, ast.Call):
            options = {word.arg: word.value for word in node.keywords}
            for name in ("allow_pickle", "shell"):
                assert name not in options or (isinstance(options[name], ast.Constant) and not options[name].value)
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            assert called not in ("eval", "exec", "compile", "__import__")
            assert ast.unparse(node.func) not in ("os.system", "os.popen", "subprocess.getoutput")


CHILD = """
import pickle, sys

def bomb(*args, **options):
    raise AssertionError("something was unpickled")

sys.addaudithook(lambda event, args: bomb() if event == "pickle.find_class" else None)
class Bomb(pickle._Unpickler):
    __init__ = load = bomb
pickle.load = pickle.loads = bomb
pickle.Unpickler = pickle._Unpickler = Bomb

import plasticity_jax
from plasticity_jax.storage import workdir
from tests.faults.study import get_config

plasticity_jax.run(get_config(), sys.argv[1])
plasticity_jax.load(sys.argv[1], "warm", 0)
counts = workdir.read_json(sys.argv[1] + "/status.json")
print("compiled", counts["compilations"], "loaded", counts["from_cache"])
"""


@pytest.mark.long
def test_no_pickle_is_loaded_by_a_run_nor_by_what_is_read_back(tmp_path):
    """Not in checkpoints, the data set's cache or jax's cache of programs, all of which the second start reads."""
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    for name in ("first", "second", "second"):
        call = [sys.executable, "-c", CHILD, str(tmp_path / name)]
        done = subprocess.run(call, cwd=ROOT, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if name == "second":
            assert "loaded 0" not in done.stdout  # so the cache of programs was read
            break
    assert list((tmp_path / "cache").rglob("*.npz")) and list((tmp_path / "cache").rglob("*-cache"))


# No path leads outside.

NAMES = st.one_of(
    st.sampled_from(
        ["../x", "..", ".", "", "/etc", "/etc/passwd", "a/b", "a\x00b", "a\nb", "a" * 300, "\u202ea", "ä", "~", "$(id)"]
    ),
    st.text(max_size=20),
    st.text(alphabet="./\\~-a\x00\n", min_size=1, max_size=8),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), NAMES),
    lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(NAMES, inside, max_size=3)),
    max_leaves=6,
)


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The path of every value in JSON: keys and positions from the top."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*at, key)
        yield from places(part, (*at, key))


@st.composite
def spoilt(draw, good: Any) -> Any:
    """JSON in which one or two values or keys are replaced by others."""
    content = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 2))):
        paths = list(places(content))
        if not paths:
            return draw(VALUES)
        *way, last = draw(st.sampled_from(paths))
        holder = content
        for key in way:
            holder = holder[key]
        if isinstance(holder, dict) and draw(st.integers(0, 3)) == 0:
            holder[draw(NAMES)] = holder.pop(last)
        else:
            holder[last] = draw(VALUES)
    return content


def one_line(error: Exception) -> None:
    assert isinstance(error, LabError), f"{type(error).__name__}: {error}"
    assert str(error) and all(char.isprintable() for char in str(error)), repr(str(error))


def inside(top: Path, *parts: str) -> None:
    """Assert that a path made of names stays below `top`, and that each name is one valid file name."""
    path = top.joinpath(*parts)
    assert Path(os.path.normpath(path)).is_relative_to(top) and Path(os.path.normpath(path)) != top
    assert all(0 < len(os.fsencode(part)) <= 255 and "\x00" not in part for part in path.parts)


STUDY = parse.describe(study_config.parse(small.config(grid=(("stages.tune.optim.learning_rate", (0.1, 0.2)),))))
WELL_KNOWN = ["packs", "name", "seeds", "plans", "stages", "branch", "dataset"]


@given(spoilt(STUDY))
def test_a_study_from_anybody_stays_in_its_directory(described):
    try:
        study = restore_study(described)
        for pack in study.packs:
            for group in unfold(pack, study.seeds):
                inside(Path("/top"), pack.name, group.name, "end")
                for run in group.runs:
                    inside(Path("/top/tensorboard"), *tensorboard.run_directory(run.id).parts)
    except LabError as error:
        one_line(error)


@given(NAMES)
def test_names_in_a_config_stay_in_its_directory(name):
    content = small.single().to_dict()  # a ConfigDict has no keys with dots
    content |= {"stages": {name: content["stages"]["train"]}, "control": name}
    try:
        study = study_config.parse(content)
    except LabError:  # its line may contain the name unchanged: a config is the user's own code
        return
    inside(Path("/top"), study.packs[0].name, study.packs[0].plans[0][1][0].name)


JOB = {"name": "a,b=1", "study": "s", "pack": "main", "points": [0], "seeds": [0, 1]}
JOB |= {"runs": 4, "images": 10, "seconds": None, "bytes": 5}
ATTEMPTS = {"place": "the start", "tries": 1, "errors": ["no"], "gave_up": False}
ENVIRONMENT = {"dataset": {"sha256": "0", "classes": 3, "image_shape": [8, 8, 1]}}
ENVIRONMENT |= {"choices": {"main": {"strategy": "map", "dtype": "float32"}}}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@given(content=spoilt({"version": 1, "jobs": [JOB, JOB | {"name": "other"}]}))
def test_a_sweep_from_anybody_stays_in_its_directory(content, scratch):
    (scratch / "sweep.json").write_text(json.dumps(content))
    try:
        listed = jobs.read(scratch)
    except LabError as error:
        one_line(error)
        return
    for planned in listed:
        inside(scratch, *jobs.directory(scratch, planned).relative_to(scratch).parts)
        assert job_states.look(scratch, planned).state in job_states.STATES


@given(content=st.one_of(spoilt(ATTEMPTS), VALUES))
def test_attempts_from_anybody_are_read_or_none(content, scratch):
    (scratch / "attempts.json").write_text(json.dumps(content))
    assert isinstance(attempts.read(scratch), attempts.Attempts)


@given(content=st.one_of(spoilt(ENVIRONMENT), VALUES))
def test_an_environment_from_anybody_is_whole_or_one_line(content, scratch):
    (scratch / "environment.json").write_text(json.dumps(content))
    try:
        recorded = environment.read(scratch)
    except LabError as error:
        one_line(error)
        return
    assert isinstance(recorded["dataset"]["sha256"], str) and len(recorded["dataset"]["image_shape"]) == 3


@given(status=st.one_of(VALUES, spoilt({"status": "running", "images": 3, "seconds_left": 1.0})), result=VALUES)
def test_the_state_of_a_job_never_crashes(status, result, scratch):
    one = jobs.Job(**JOB | {"points": (0,), "seeds": (0, 1)})
    directory = jobs.directory(scratch, one)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "status.json").write_text(json.dumps(status))
    for content in (None, result, {"status": "finished", "runs": result, "images": result}):
        (directory / "result.json").unlink(missing_ok=True)
        if content is not None:
            (directory / "result.json").write_text(json.dumps(content))
        assert job_states.look(scratch, one).state in job_states.STATES


RUN = {"run": "fresh/seed0", "pack": "main", "seed": 0, "branch": "fresh", "hparams": {}, "status": "finished"}
RESULT = {"runs": [RUN | {"test_accuracy": 50.0}, RUN | {"run": "warm/seed0", "branch": "warm", "test_accuracy": None}]}
RESULT |= {"images": 10, "seconds": {"train": 1.0}, "train_seconds": {"main/tune": 1.0}}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """(a study of a sweep with one job, the job's directory)."""
    sweep = tmp_path_factory.mktemp("planned") / "sweep"
    (one,) = swept.planned(sweep, {"mine": study_config.parse(small.config(seeds=(0,)))}, planner.Budget())
    directory = jobs.directory(sweep, one)
    directory.mkdir(parents=True)
    return sweep / "mine", directory


@given(content=st.one_of(spoilt(RESULT), VALUES))
def test_the_result_of_a_job_is_combined_or_one_line(content, planned):
    study, job_directory = planned
    (job_directory / "result.json").write_text(json.dumps(content))
    try:
        combined = analysis.load_result(study)
    except LabError as error:
        one_line(error)
    else:
        assert combined["images"] == content["images"]


@pytest.mark.parametrize("name", ["config.json", "environment.json", "sweep.json"])
def test_json_too_deep_to_read_is_one_line(name, tmp_path):
    readers = {"environment.json": environment.read, "sweep.json": jobs.read}
    readers["config.json"] = lambda directory: networks.load(directory, "fresh", 0)
    (tmp_path / name).write_text(DEEP)
    with pytest.raises(LabError, match="damaged"):
        readers[name](tmp_path)


def test_other_json_too_deep_to_read_counts_as_damaged(tmp_path):
    one = jobs.Job(**JOB | {"points": (0,), "seeds": (0, 1)})
    directory = jobs.directory(tmp_path, one)
    directory.mkdir(parents=True)
    (directory / "attempts.json").write_text(DEEP)
    assert attempts.read(directory) == attempts.Attempts()
    (directory / "status.json").write_text(DEEP)
    assert job_states.look(tmp_path, one).state in job_states.STATES
    (directory / "metrics.jsonl").write_text(DEEP + "\n")
    with pytest.raises(LabError, match="not a row of a table"):
        metrics.read(directory / "metrics.jsonl")


GROUP = unfold(study_config.parse(small.config()).packs[0], (0, 1))[-1]
PLACE = {"next": 1, "closed": [False] * len(GROUP.runs), "mark": {"bytes": 3, "crc32": 7}}
ENDED = [{"id": run.id, "sha256": "0", "failed": False, "steps": 3} for run in GROUP.runs]


def test_what_a_checkpoint_says_about_itself_is_known():
    assert saver.is_place(GROUP, PLACE) and stage_loop.is_outcome(GROUP, {"mark": PLACE["mark"], "runs": ENDED})


@given(st.one_of(spoilt(PLACE), VALUES))
def test_a_place_from_anybody_is_sound_or_damage(meta):
    if saver.is_place(GROUP, meta):
        at = saver.Place(meta["next"], meta["closed"], 0.0, {})
        assert at.event >= 0 and all(isinstance(closed, bool) for closed in at.closed)
        assert metrics.fits(Path("/nowhere"), meta["mark"]) in (True, False)


@given(st.one_of(spoilt({"mark": PLACE["mark"], "runs": ENDED}), VALUES))
def test_an_outcome_from_anybody_is_sound_or_damage(meta):
    if stage_loop.is_outcome(GROUP, meta):
        assert [run["id"] for run in meta["runs"]] == [run.id for run in GROUP.runs]


# What the analysis reads.

MEASURED = synthetic.study(
    small.config(name="multistage", dataset="digits"),
    synthetic.values({label: {0: 50.0, 1: 60.0} for label in ("pretrain", "fresh", "pretrain+tune")}),
)
CONFIG, RESULT = dict(MEASURED.config), {**(MEASURED.result or {}), "images": 3, "seconds": {"total": 1.0}}
ROW = {"run": "fresh/seed0", "seed": 0, "branch": "fresh", "hparams": {}, "stage": "tune", "epoch": 3.0, "step": 18}
ROW |= {"metric": "test_accuracy", "value": 50.0}
NO_STUDY = ["[]", "3", "null", '"x"', "{}", '{"packs": 3}', '{"packs": [], "seeds": [0]}', '{"packs": [3]}', DEEP]
COMMANDS = {"claims": verify.main, "figures": figures.main, "report": report.main, "collect": collect.main}


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A directory that is not inside a sweep."""
    return tmp_path_factory.mktemp("apart")


@pytest.fixture
def measured(tmp_path):
    directory = synthetic.write(MEASURED, tmp_path / "measured")
    (directory / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return directory


def read_all(directory: Path) -> None:
    """Read a study and describe it in words and numbers, or fail with one line."""
    try:
        study = studies.read(directory)
        verify.table([study], verify.judge([study]))
        report.numbers(study)
        report.cost([study.name], [facts.read(study)])
        scale.describe(study)
    except LabError as error:
        one_line(error)


@pytest.mark.parametrize("content", NO_STUDY, ids=lambda content: content[:30])
@pytest.mark.parametrize("command", COMMANDS)
def test_json_that_is_no_study_is_one_line_of_each_command(command, content, measured, tmp_path):
    (measured / "config.json").write_text(content)
    out = [] if command == "claims" else ["--out", str(tmp_path / "out.html")]
    with pytest.raises(SystemExit) as stopped:
        COMMANDS[command]([str(measured), *out])
    line = str(stopped.value.code)
    assert line.startswith(f"analysis.{command}: {measured / 'config.json'} ") and "\n" not in line
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize("content", [*NO_STUDY, '{"packs": [{"name": 3, "branch": 4}]}'], ids=lambda text: text[:30])
def test_a_workdir_of_no_study_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WorkdirError, match="config.json"):
        workdir.claim(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == content


@given(content=st.one_of(spoilt(CONFIG), VALUES))
def test_a_config_from_anybody_is_a_study_or_one_line(content, apart):
    directory = synthetic.write(MEASURED, apart / "config") if not (apart / "config").exists() else apart / "config"
    (directory / "config.json").write_text(json.dumps(content))
    read_all(directory)
    try:
        workdir.claim(directory, CONFIG)
    except WorkdirError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))


@pytest.mark.parametrize("key", ["name", "branch"])
def test_a_config_of_another_study_is_one_line(key, measured):
    config = copy.deepcopy(CONFIG)
    config["packs"][0]["plans"][0][1][1][key] = "other"
    (measured / "config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match="measurements of 'main / tune / fresh', which its config.json does not plan"):
        studies.read(measured)


@settings(max_examples=20)
@given(content=st.one_of(spoilt(RESULT), VALUES))
def test_a_result_from_anybody_is_one_or_one_line(content, apart):
    directory = apart / "result"
    if not directory.exists():
        synthetic.write(MEASURED, directory)
    (directory / "result.json").write_text(json.dumps(content))
    read_all(directory)


ASIDE = {"environment.json": ENVIRONMENT | {"packages": {"jax": "1"}, "commit": "abc", "backend": "cpu"}}
ASIDE |= {"status.json": {"status": "running", "compilations": 3}, "main/clock.json": {"train": 1.0}}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "environment.json" else ()) for name in ASIDE]
)
@settings(max_examples=50)
@given(data=st.data())
def test_what_else_a_study_says_is_taken_or_left(name, data, apart):
    path = apart / name.partition(".")[0].replace("/", "-") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data.draw(st.one_of(spoilt(ASIDE[name]), VALUES))))
    directory = path.parent.parent if path.parent.name == "main" else path.parent
    about = facts.read(dataclasses.replace(MEASURED, directory=directory, result=None))
    assert about.runs == 4
    assert "multistage" in report.overview([MEASURED], [about], ["a"]) and report.cost(["a"], [about])


@pytest.mark.parametrize("name", ["result.json", "environment.json"])
@pytest.mark.parametrize("content", ["[]", "3", "null", DEEP], ids=lambda content: content[:30])
def test_what_is_no_result_nor_environment_is_one_line(name, content, measured):
    (measured / name).write_text(content)
    with pytest.raises(LabError, match=name):
        {"result.json": analysis.load_result, "environment.json": analysis.load_environment}[name](measured)


@given(content=st.one_of(spoilt(ROW), VALUES))
def test_a_row_from_anybody_is_one_or_one_line(content, apart):
    table = apart / "rows" / "main" / "tune" / "metrics.jsonl"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(f"{json.dumps(content)}\n{json.dumps(ROW)}\n")
    try:
        assert len(analysis.load(apart / "rows")) == 2
    except LabError as error:
        one_line(error)


# Links.

LINKS = ["config.json", ".lock", "status.json.tmp", "main", "main/tune", "main/tune/checkpoints", "main/tune/end"]
LINKS += ["main/tune/metrics.jsonl", "main/clock.json.tmp", "tensorboard", "tensorboard/fresh/seed0/events"]


@pytest.mark.parametrize("link", LINKS)
def test_nothing_behind_a_link_is_touched(link, tmp_path):
    outside, directory = tmp_path / "outside", tmp_path / "run"
    (outside / "checkpoints" / "1").mkdir(parents=True)
    (outside / "file").write_text("precious")
    path = directory / link
    path.parent.mkdir(parents=True)
    path.symlink_to(outside / "file" if "." in path.name else outside)
    with pytest.raises(WorkdirError, match="a link that leads out of the workdir; delete it"):
        small.run(small.config(), directory)
    assert (outside / "file").read_text() == "precious" and (outside / "checkpoints" / "1").is_dir()
    assert len(list(outside.rglob("*"))) == 3


@pytest.mark.parametrize("link", ["s", "s/jobs", "s/jobs/a,b=1"])
def test_no_job_is_trained_behind_a_link(link, tmp_path):
    sweep, outside = tmp_path / "sweep", tmp_path / "outside"
    outside.mkdir()
    (sweep / link).parent.mkdir(parents=True)
    (sweep / link).symlink_to(outside)
    workdir.write_json(sweep / "sweep.json", {"version": 1, "jobs": [JOB]})
    for start in (lambda: job.train(sweep, jobs.read(sweep)[0], 3), lambda: local.run(sweep, 1, 3)):
        with pytest.raises(LabError, match="leads out of the sweep by a link"):
            start()
    assert not list(outside.iterdir())


def test_links_that_stay_inside_are_no_matter(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "data").mkdir()
    (tmp_path / "there" / "main").symlink_to("data")
    (tmp_path / "run").symlink_to("there")
    with workdir.lock(tmp_path / "run"):
        pass
