"""Paths that a user gives: every command refuses impossible ones in one line, before it does anything."""

import os
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import plasticity_jax
import plasticity_jax.main
from plasticity_jax import analysis
from plasticity_jax.analysis import collect, figures, verify
from plasticity_jax.analysis.report import report
from plasticity_jax.config import paths
from plasticity_jax.data import datasets
from plasticity_jax.errors import LabError
from plasticity_jax.launch import job, job_states, local, planner, slurm, status, sweep
from plasticity_jax.storage import workdir
from tests.support import commands, nasty, small, swept

RESULTS = Path(__file__).parents[2] / "analysis" / "results"
ADDRESSES = ["gs://bucket/run", "s3://bucket", "https://host/run?x=%20", "file:///run", "gs:/bucket/run"]
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=60)


@given(NAMES)
@example("~")
@example("gs:")
@example("gs://bucket/run")
@example("a\nb")
def test_whatever_is_a_path_stays_what_it_is(name):
    assert paths.given(f"./{name}") == Path(f"./{name}")
    assert paths.given(f"/{name}") == Path(f"/{name}")
    assert paths.given(Path("/runs") / name) == Path("/runs") / name


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/users/me")
    assert paths.given("~/runs") == Path("/users/me/runs")
    assert paths.given(Path("~")) == Path("/users/me")


@given(st.text(string.ascii_letters, min_size=2), st.text(string.ascii_letters + "/.%?"))
def test_addresses_are_refused(scheme, rest):
    for address in (f"{scheme}://{rest}", Path(f"{scheme}://x/{rest}")):
        with pytest.raises(LabError, match="is an address, not a directory: mount it") as error:
            paths.given(address)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a\0b", os.fsdecode(b"\xff")], ids=ascii)
def test_other_paths_that_cannot_be_are_refused(path):
    with pytest.raises(
        LabError, match="no such user; for a local directory of this name write ./|is not a valid UTF-8 path"
    ):
        paths.given(path)


def test_a_path_without_room_for_checkpoints_is_refused(tmp_path):
    names = "x" * 100
    while len(str(tmp_path)) + 101 < os.pathconf("/", "PC_PATH_MAX") - paths.BELOW:
        tmp_path /= names
    with workdir.lock(tmp_path):
        pass
    with pytest.raises(LabError, match="the path is too long; use another directory"), workdir.lock(tmp_path / names):
        pass


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("address", ADDRESSES)
def test_every_command_refuses_an_address(address, tmp_path, monkeypatch, capsys):
    config = f"--config={swept.file(tmp_path)}"
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(slurm.squeue, "there", lambda: True)
    monkeypatch.chdir(tmp_path)
    calls = [
        (plasticity_jax.main.main, config, f"--workdir={address}"),
        (sweep.main, config, f"--workdir={address}"),
        (slurm.main, config, f"--workdir={address}"),
        (job.main, f"--workdir={address}", "--job=0"),
        (local.main, f"--workdir={address}"),
        (status.main, address),
        (verify.main, address),
        (verify.main, "x", f"--json={address}"),
        (collect.main, address, "--out=x"),
        (collect.main, "x", f"--out={address}"),
        (figures.main, address, "--out=x"),
        (figures.main, "x", f"--out={address}"),
        (report.main, address, "--out=x"),
        (report.main, "x", f"--out={address}"),
    ]
    for main, *args in calls:
        if main.__module__.startswith("plasticity_jax.analysis"):
            with pytest.raises(SystemExit) as exit_:
                main(args)
            said = str(exit_.value.code)
        else:
            code, _, err = commands.call(main, *args, capture=capsys, directory=tmp_path)
            assert code == 1
            said = err.strip()
        assert "is an address, not a directory" in said and "\n" not in said and address in said, main.__module__
    with pytest.raises(LabError, match="is an address"):
        small.run(small.config(), address)
    with pytest.raises(LabError, match="is an address"):
        plasticity_jax.load(address, "fresh", 0)
    with pytest.raises(LabError, match="is an address"):
        datasets.load("mnist", address)
    assert sorted(tmp_path.rglob("*")) == before


STAND_IN = "from unittest import mock\nxm = xm_local = mock.MagicMock()\n"
START = (
    "from absl import flags; from plasticity_jax.launch import xm\n"
    "flags.FLAGS(['xm', '--workdir=gs://bucket/run']); xm.main([])"
)


def test_xmanager_is_given_no_address(tmp_path):
    """With a stand-in for XManager, which need not be installed; in a process, for its flags clash with those here."""
    (tmp_path / "xmanager.py").write_text(STAND_IN)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{commands.ROOT}"}
    call = [sys.executable, "-c", START]
    done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    commands.refused(commands.Done(done.returncode, done.stdout, done.stderr), "gs://bucket/run is an address, not a")
    assert not (tmp_path / "gs:").exists()


@pytest.mark.parametrize("name", nasty.PATHS[:-1], ids=range(len(nasty.PATHS) - 1))
def test_results_are_read_and_written_below_any_path(name, tmp_path, capsys):
    shutil.copytree(RESULTS / "blending", tmp_path / name / "in")
    collect.main([str(tmp_path / name / "in"), f"--out={tmp_path / name / 'out'}"])
    assert analysis.load(tmp_path / name / "out").equals(analysis.load(RESULTS / "blending"))
    verify.main([str(tmp_path / name / "out"), f"--json={tmp_path / name / 'json'}/claims.json"])
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", nasty.PATHS[:-1], ids=range(len(nasty.PATHS) - 1))
def test_a_sweep_is_read_below_any_path(name, tmp_path, capsys):
    swept.planned(tmp_path / name, swept.config(), planner.Budget())
    assert status.main([str(tmp_path / name)]) == 75
    with workdir.lock(tmp_path / name):
        assert job_states.held(tmp_path / name)
