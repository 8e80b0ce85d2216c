"""The sbatch script works with any names, and nothing is submitted twice."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.errors import LabError
from plasticity_jax.launch import attempts, jobs, sbatch, slurm, squeue
from plasticity_jax.launch.containers import Container
from plasticity_jax.storage import workdir
from tests.support import commands

HOSTILE = ["a b", "'", '"', "$(touch x)", "`touch x`", "; touch x", "#", "%j%%", "é", "--help", "-", "!", "*", "&|<>"]
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20)


def written(sweep=Path("/s"), positions=(0, 1), limit=1001, python="python", home=Path("/"), **wishes) -> str:
    return sbatch.write(sweep, positions, limit, sbatch.Wishes(**{"resources": {}} | wishes), python, home)


def directives(text: str) -> dict[str, str]:
    """Option -> value, as sbatch parses it: like a shell without `$`, and `#` begins a comment."""
    lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    words = [shlex.split(line, comments=True) for line in lines]
    assert all(len(found) == 1 for found in words)
    return dict(found[0].removeprefix("--").partition("=")[::2] for found in words)


# Numbers of tasks.


@pytest.mark.parametrize(
    ("tasks", "text"),
    [([0], "0"), ([0, 1], "0-1"), ([7, 0, 1, 2, 3, 3], "0-3,7"), ([1, 3, 5], "1,3,5"), (range(1000), "0-999")],
)
def test_task_numbers_are_compact(tasks, text):
    assert sbatch.array(tasks) == text
    assert sbatch.array(tasks, 2) == f"{text}%2"


@given(st.sets(st.integers(0, 60), min_size=1))
def test_task_numbers_say_all_and_no_more(tasks):
    found = [tuple(map(int, span.split("-"))) for span in sbatch.array(tasks).split(",")]
    assert [n for span in found for n in range(span[0], span[-1] + 1)] == sorted(tasks)
    assert all(after[0] > before[-1] + 1 for before, after in zip(found, found[1:], strict=False))


@given(st.sets(st.integers(0, 5000), min_size=1), st.integers(1, 1001))
def test_arrays_stay_below_the_limit_of_the_cluster(positions, limit):
    parts = sbatch.chunks(sorted(positions), limit)
    assert sorted(offset + task for offset, tasks in parts for task in tasks) == sorted(positions)
    assert all(0 <= task < limit for _, tasks in parts for task in tasks)


# The text.


def test_every_line_of_sbatch_is_explained_and_what_is_not_asked_for_is_not_there():
    lines = written(resources={"partition": "gpu", "time": ""}, setup=("module load cuda",)).splitlines()
    assert lines[0] == "#!/bin/bash"
    assert "#SBATCH --partition=gpu" in lines
    assert not any("--time" in line for line in lines)
    assert "module load cuda" in lines
    blocks = "\n".join(lines).split("\n\n")
    assert all(block.startswith("#") for block in blocks)


def test_it_asks_for_what_the_flags_say():
    settings = directives(written(parallel=3, grace=45, resources={"mem": "32G", "constraint": "[a&b]|c", "gpus": "2"}))
    assert settings["array"] == "0-1%3"
    assert settings["signal"] == "USR1@45"
    assert settings["constraint"] == "[a&b]|c"
    assert settings["mem"] == "32G"
    assert "requeue" in settings and settings["open-mode"] == "append"


@given(TEXT)
def test_values_reach_sbatch_as_they_are(value):
    try:
        settings = directives(written(resources={"comment": value}))
    except LabError:
        assert not value.isprintable()
    else:
        assert settings["comment"] == value


@pytest.mark.parametrize("value", ["a\nb", "a\n#SBATCH --uid=0", "\x00", "\x1b[31m", "a\u2028b", "\udc80", "a\tb"])
def test_what_no_line_can_hold_is_refused(value):
    with pytest.raises(LabError, match="sbatch script cannot hold"):
        written(resources={"comment": value})
    with pytest.raises(LabError, match="cannot hold"):
        written(Path("/s") / value.replace("\x00", "\n"))


def test_a_percent_sign_in_a_path_is_no_pattern_and_a_backslash_is_refused():
    assert directives(written(Path("/s/%j")))["output"] == "/s/%%j/slurm/%A_%a.log"
    with pytest.raises(LabError, match="backslash"):
        written(Path("/s/a\\b"))


def test_another_directory_has_another_name_in_the_queue(tmp_path):
    assert sbatch.label(tmp_path / "a") != sbatch.label(tmp_path / "b" / "a")
    assert sbatch.label(tmp_path / "a" / ".." / "a") == sbatch.label(tmp_path / "a")
    assert sbatch.label(tmp_path / "a, b|c\n").split("-")[0] == "a__b_c_"


def test_more_jobs_than_an_array_holds_are_several(tmp_path):
    text = written(tmp_path, [3, 1002, 1003], parallel=2)
    assert directives(text)["array"] == "3%2"
    command = shlex.split(next(line for line in text.splitlines() if "   and with:" in line).partition("with:")[2])
    assert command == sbatch.submission(tmp_path, 1001, [1, 2], 2)
    assert command[-1] == "1001" and "--array=1-2%2" in command
    assert "{1:-1001}" in written(tmp_path, [1002])


# The shell parts, run.


def execute(text: str, folder: Path, code: int = 0, queue: str = "RUNNING None", **env: str):
    """Run a script with an srun that records its arguments; the exit status, and the arguments of scontrol."""
    folder.mkdir(exist_ok=True)
    tool(folder, "srun", f'printf \'%s\\0\' "$PWD" "$@" >{shlex.quote(str(folder))}/srun.txt; exit {code}')
    tool(folder, "squeue", f"echo {queue}")
    tool(folder, "scontrol", f'echo "$@" >{shlex.quote(str(folder))}/scontrol.txt')
    variables = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "15", **env}
    path = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    (folder / "job.sh").write_text(text)
    command, env = ["bash", folder / "job.sh"], {**os.environ, **path, **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    told = folder / "scontrol.txt"
    (folder / "stderr.txt").write_text(done.stderr)
    return done.returncode, told.read_text() if told.exists() else ""


def tool(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def given_to_srun(folder: Path) -> list[str]:
    return (folder / "srun.txt").read_text().split("\0")[:-1]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_reach_the_job_as_they_are(name, tmp_path):
    home = tmp_path / f"home {name}"
    home.mkdir()
    sweep, python = tmp_path / name, f"/bin/{name}"
    code, _ = execute(written(sweep, home=home, python=python, tries=5), tmp_path / "tools")
    assert code == 0
    where, *words = given_to_srun(tmp_path / "tools")
    assert where == str(home)
    assert words == [
        "--kill-on-bad-exit=1", python, "-m", "plasticity_jax.launch.job", f"--workdir={sweep}", "--tries=5", "--job=3"
    ]  # fmt: skip
    assert not list(tmp_path.rglob("x"))


@given(name=TEXT.filter(lambda text: text.isprintable() and not set(text) & set("/\\") and text not in (".", "..")))
def test_any_name_reaches_the_job_as_it_is(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    execute(written(Path("/sweeps") / name), folder)
    assert given_to_srun(folder)[5] == f"--workdir=/sweeps/{name}"


@pytest.mark.parametrize(
    ("code", "queue", "env", "back"),
    [
        (0, "RUNNING None", {}, False),
        (1, "RUNNING None", {}, False),  # failed for good
        (2, "RUNNING None", {}, False),  # a wrong flag
        (75, "RUNNING None", {}, True),  # warned and saved, or failed with attempts left
        (75, "COMPLETING None", {}, False),  # cancelled, or put back by SLURM
        (75, "COMPLETING TimeLimit", {}, True),
        (137, "RUNNING None", {}, True),  # killed
        (137, "RUNNING None", {"SLURM_RESTART_COUNT": "20"}, False),
        (75, "RUNNING None", {"SLURM_RESTART_COUNT": "20"}, True),
        (137, "COMPLETING None", {}, False),
        (75, "", {}, False),  # SLURM does not answer
    ],
)
def test_back_into_the_queue(code, queue, env, back, tmp_path):
    assert execute(written(), tmp_path / "tools", code, queue, **env) == (code, "requeue 12_3\n" if back else "")


def test_the_position_is_the_task_behind_the_offset(tmp_path):
    execute(written(positions=[1004]), tmp_path)
    assert given_to_srun(tmp_path)[-1] == "--job=1004"


def test_setup_lines_are_run_first(tmp_path):
    execute(written(setup=("cd /usr", "export SRUN_X=1")), tmp_path)
    assert given_to_srun(tmp_path)[0] == "/usr"


@pytest.mark.parametrize(
    ("setup", "line", "status"),
    [
        (("true", "module load nope"), "module load nope", 127),
        (("(exit 3)  # a comment", "true"), "(exit 3)  # a comment", 3),
        (("[ -d '/no/where' ]",), "[ -d '/no/where' ]", 1),
        (("(exit 75)",), "(exit 75)", 75),  # is not put back into the queue
    ],
)
def test_a_setup_line_that_fails_ends_the_job_with_its_status_and_a_line(setup, line, status, tmp_path):
    assert execute(written(setup=setup), tmp_path) == (status, "")
    assert not (tmp_path / "srun.txt").exists()
    assert (tmp_path / "stderr.txt").read_text().splitlines()[-1] == f"status {status}: setup failed: {line}"


# Options of sbatch that are passed through.


def test_other_options_of_sbatch_are_passed_through():
    options = ("gres=gpu:a100:2", "exclusive", "gpus=2", "dependency=afterok:3:4", "comment=a b=c", "mail-user=")
    settings = directives(written(options=options, resources={"mem": "", "gpus-per-node": ""}))
    assert {key: settings[key] for key in ("gres", "exclusive", "gpus", "dependency", "comment", "mail-user")} == {
        "gres": "gpu:a100:2", "exclusive": "", "gpus": "2", "dependency": "afterok:3:4", "comment": "a b=c",
        "mail-user": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("array=0-3",), "sets --array itself"),
        (("sig=USR1@9",), "sets --sig itself"),  # sbatch would take it for --signal
        (("no-requeue",), "sets --no-requeue itself"),
        (("cpus-per-task=3",), "use the flag --cpus of"),
        (("partition=gpu",), "use the flag --partition of"),
        (("hint=a", "hint=b"), "given twice"),
        (("p=gpu",), "write KEY=VALUE"),
        (("--exclusive",), "write KEY=VALUE"),
        (("=3",), "write KEY=VALUE"),
        (("a b=3",), "write KEY=VALUE"),
        (("comment=a\n#SBATCH --uid=0",), "cannot hold"),
    ],
)
def test_what_the_script_or_a_flag_sets_is_not_passed_through(options, words):
    with pytest.raises(LabError, match=f"--sbatch=.*{words}"):
        written(options=options, resources={"partition": "", "cpus-per-task": ""})


def test_a_wrong_option_is_refused_before_anything_is_planned(tmp_path, capsys):
    flags = "--config=tests/slurm/study.py:short", f"--workdir={tmp_path / 'sweep'}", "--dry_run"
    commands.refused(commands.call(slurm.main, *flags, "--sbatch=array=1", capture=capsys), "--array itself")
    commands.refused(commands.call(slurm.main, *flags, "--mount=/data", capture=capsys), "give --container")


# Containers.


@pytest.mark.parametrize("gpus", [False, True])
@pytest.mark.parametrize("image", ["/images/lab 1.sif", "docker://nvcr.io/nvidia/jax:24.10-py3"])
def test_an_image_of_apptainer_is_executed_by_it(image, gpus, tmp_path):
    container = Container(image, ("/data", "/s"), gpus)
    assert execute(written(home=tmp_path, container=container), tmp_path / "tools")[0] == 0
    where, *words = given_to_srun(tmp_path / "tools")
    assert where == str(tmp_path)
    assert words == [
        "--kill-on-bad-exit=1", "apptainer", "exec", *["--nv"] * gpus, f"--bind=/s,{tmp_path},/data",
        f"--pwd={tmp_path}", image, "python3", "-m", "plasticity_jax.launch.job", "--workdir=/s", "--tries=3",
        "--job=3",
    ]  # fmt: skip


@pytest.mark.parametrize("image", ["nvcr.io#nvidia/jax:24.10-py3", "/images/lab.sqsh", "ubuntu"])
def test_any_other_image_is_one_for_pyxis(image, tmp_path):
    assert execute(written(home=tmp_path, container=Container(image, ("/data",))), tmp_path / "tools")[0] == 0
    assert given_to_srun(tmp_path / "tools")[1:] == [
        "--kill-on-bad-exit=1", f"--container-image={image}",
        f"--container-mounts=/s:/s,{tmp_path}:{tmp_path},/data:/data", "--container-mount-home",
        f"--container-workdir={tmp_path}", "python3", "-m", "plasticity_jax.launch.job", "--workdir=/s", "--tries=3",
        "--job=3",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["data", "/a,b", "/a:b", ""])
@pytest.mark.parametrize("image", ["a.sif", "a.sqsh"])
def test_what_a_list_of_mounts_cannot_say_is_refused(image, path):
    with pytest.raises(LabError, match="cannot mount .* in a container"):
        written(container=Container(image, (path,)))


# What is submitted, with simulated SLURM commands.


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """SLURM commands that answer from files: the arguments of sbatch, the output of squeue."""
    folder = tmp_path / "bin"
    folder.mkdir()
    tool(folder, "sbatch", f'printf \'%s\\0\' "$@" >>{folder}/sbatch.txt; echo "41;cluster"')
    tool(folder, "squeue", f"cat {folder}/queue.txt")
    tool(folder, "scontrol", "echo 'MaxArraySize            = 3'")
    (folder / "queue.txt").write_text("")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def job(i: int) -> jobs.Job:
    return jobs.Job(f"p,seeds={i}", "toy", "p", (0,), (i,), 1, 100, None, None)


@pytest.fixture
def planned(tmp_path):
    """Five jobs of which the second has finished and the third gave up."""
    listed = [job(i) for i in range(5)]
    sweep = tmp_path / "a sweep"
    jobs.write(sweep, listed)
    (sweep / "slurm").mkdir()
    done = jobs.directory(sweep, listed[1])
    workdir.write_json(done / "result.json", {"status": "finished", "runs": [], "images": 100})
    attempts.write(jobs.directory(sweep, listed[2]), attempts.Attempts("the start", 3, ("a reason",), True))
    return sweep, listed


@pytest.fixture(autouse=True)
def parsed():
    """The flags with their defaults."""
    if not slurm.flags.FLAGS.is_parsed():
        slurm.flags.FLAGS.mark_as_parsed()


def submitted(cluster: Path) -> list[str]:
    return (cluster / "sbatch.txt").read_text().split("\0")[:-1] if (cluster / "sbatch.txt").exists() else []


def test_what_is_missing_is_submitted_in_arrays_that_the_cluster_takes(cluster, planned, capsys):
    sweep, listed = planned
    slurm.submit(sweep, listed)
    path = str(sweep / "slurm" / "job.sh")
    name = sbatch.label(sweep)
    assert submitted(cluster) == [
        "--parsable", f"--job-name={name}", "--array=0,2", path, "0",
        "--parsable", f"--job-name={name}+3", "--array=0-1", path, "3",
    ]  # fmt: skip
    assert not attempts.read(jobs.directory(sweep, listed[2])).gave_up
    printed = capsys.readouterr().out
    assert "submitted 41: 2 jobs, tasks 0,2" in printed
    assert "scancel 41" in printed and "plasticity status" in printed


def test_what_is_in_the_queue_is_not_submitted_again(cluster, planned, capsys):
    sweep, listed = planned
    name = sbatch.label(sweep)
    lines = [f"{name}|0|7|PENDING|Priority|", f"{name}+3|1|8|RUNNING|None|node1", "other|2|9|RUNNING|None|node1"]
    (cluster / "queue.txt").write_text("\n".join(lines) + "\n")
    slurm.submit(sweep, listed)
    assert [word for word in submitted(cluster) if word.startswith("--array")] == ["--array=2", "--array=0"]
    assert "2 jobs are in the queue already" in capsys.readouterr().out
    assert squeue.read(sweep, 5) == {
        0: squeue.Entry("7_0", "pending", "Priority"),
        4: squeue.Entry("8_1", "running", "node1"),
    }


def test_nothing_is_submitted_where_all_is_queued_or_done(cluster, planned, capsys):
    sweep, listed = planned
    slurm.submit(sweep, listed[1:2])
    assert capsys.readouterr().out == "all jobs have finished\n"
    (cluster / "queue.txt").write_text(f"{sbatch.label(sweep)}|0|7|RUNNING|None|node1\n")
    slurm.submit(sweep, listed[:1])
    assert "nothing to submit" in capsys.readouterr().out
    assert not submitted(cluster) and not (sweep / "slurm" / "job.sh").exists()


def test_the_words_of_sbatch_are_passed_on(cluster, planned):
    sweep, listed = planned
    tool(cluster, "sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(LabError, match="invalid partition"):
        slurm.submit(sweep, listed)


def test_without_slurm_a_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    flags = "--config=tests/slurm/study.py:short", f"--workdir={tmp_path}"
    commands.refused(commands.call(slurm.main, *flags, capture=capsys), "no SLURM here")


@pytest.mark.long  # by day tests/test_documented.py makes the plans that READMEs show
def test_a_dry_run_prints_the_script_and_writes_nothing(tmp_path, monkeypatch, capsys):
    sweep = tmp_path / "sweep"
    flags = ["--config=tests/slurm/study.py:long", f"--workdir={sweep}", "--time=4:00:00", "--gpus=2", "--dry_run"]
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        done = commands.call(slurm.main, *flags, "--images_per_second=1000", capture=capsys)
    assert done.status == 0, done.err
    assert directives(done.out)["time"] == "4:00:00"
    assert directives(done.out)["gpus-per-node"] == "2"
    assert "1 jobs" in done.err or "1 job" in done.err
    assert not sweep.exists()
    assert subprocess.run(["bash", "-n"], input=done.out, text=True, check=False).returncode == 0
