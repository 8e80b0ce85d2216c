"""Collected results are those of the working directory, bit for bit, and name no place on the machine."""

import json
import shutil
import socket

import numpy as np
import pandas as pd
import pytest

from plasticity_jax import analysis
from plasticity_jax.analysis import collect, studies
from plasticity_jax.errors import LabError
from tests.support import small


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study with a grid whose point only one branch has, and a value that is not finite."""
    directory = tmp_path_factory.mktemp("study")
    config = small.config(data_dir=str(directory / "data"), grid=(("stages.pretrain.data.replacement", (True, False)),))
    small.run(config, directory, diagnostics={"broken": lambda state, batch: {"broken": np.float32("nan")}})
    return directory


@pytest.fixture
def unfinished(study, tmp_path):
    """The same study, killed while it wrote a row of its last stage."""
    directory = shutil.copytree(study, tmp_path / "unfinished")
    (directory / "result.json").unlink()
    table = directory / "main/tune/metrics.jsonl"
    table.write_bytes(table.read_bytes()[:-700])
    return directory


def fails(directory, out, *flags):
    """The one line of error with which the command ends."""
    with pytest.raises(SystemExit) as stop:
        collect.main([str(directory), "--out", str(out), *flags])
    assert "\n" not in str(stop.value)
    return str(stop.value)


def same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    return True


@pytest.mark.slow
def test_the_analysis_finds_the_same_in_it(study, tmp_path, capsys):
    collect.main([str(study), "--out", str(tmp_path / "out")])
    assert same(analysis.load(tmp_path / "out"), analysis.load(study))
    assert analysis.load_result(tmp_path / "out") == analysis.load_result(study)
    assert analysis.load_config(tmp_path / "out") == {**analysis.load_config(study), "data_dir": ""}
    read, original = studies.read(tmp_path / "out"), studies.read(study)
    assert same(read.table, original.table)
    assert studies.labels(read) == studies.labels(original)
    assert studies.values(read, "fresh") == studies.values(original, "fresh") != {}
    table = analysis.load(study)
    assert table.replacement.isna().any() and table.replacement.eq(True).any()
    assert table[table.metric == "broken"].value.isna().all() and (table.metric == "broken").any()
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["config.json", "environment.json", "metrics.parquet", "result.json"]
    assert all(name in capsys.readouterr().out for name in files[:1])


def test_several_collected_studies_are_told_apart(study, tmp_path):
    for name in "ab":
        collect.collect(study, tmp_path / name)
    frame = analysis.load(tmp_path / "a", tmp_path / "b")
    assert same(frame[frame.directory == str(tmp_path / "b")].iloc[:, 1:].reset_index(drop=True), analysis.load(study))


def test_the_same_study_gives_the_same_bytes(study, tmp_path):
    first = {path.name: path.read_bytes() for path in collect.collect(study, tmp_path / "a")}
    again = {path.name: path.read_bytes() for path in collect.collect(study, tmp_path / "a")}
    once_more = {path.name: path.read_bytes() for path in collect.collect(tmp_path / "a", tmp_path / "b")}
    assert first == again == once_more


def test_it_is_much_smaller_than_the_tables(study, tmp_path):
    *_, compact = collect.collect(study, tmp_path)
    assert compact.stat().st_size < sum(path.stat().st_size for path in study.rglob("metrics.jsonl")) / 4


def test_no_place_or_name_of_the_machine_comes_along(study, tmp_path):
    environment = analysis.load_environment(study)
    environment["xla_flags"] = "--xla_dump_to=/secret/place"
    environment["platform"] = "Linux-6-of-my-machine"
    copy = shutil.copytree(study, tmp_path / "copy")
    (copy / "environment.json").write_text(json.dumps(environment))
    files = collect.collect(copy, tmp_path / "out")
    words = [str(study), str(tmp_path), "/secret", "my-machine", socket.gethostname()]
    for path in files:
        assert not [word for word in words if word.encode() in path.read_bytes()], path.name
    kept = analysis.load_environment(tmp_path / "out")
    assert kept["packages"]["jax"] and kept["dataset"]["sha256"] and kept["choices"]["main"]
    assert {key: environment[key] for key in kept} == kept
    assert {"commit", "python", "device_kind", "devices", "cpu_threads"} < kept.keys()


def test_a_study_in_progress_is_taken_only_if_asked_for(unfinished, study, tmp_path):
    assert f"{unfinished} is in progress" in fails(unfinished, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    collect.main([str(unfinished), "--out", str(tmp_path / "out"), "--partial"])
    assert same(analysis.load(tmp_path / "out"), analysis.load(unfinished))
    assert studies.read(tmp_path / "out").result is None
    collect.main([str(study), "--out", str(tmp_path / "out")])  # and later, what the study has become
    assert same(analysis.load(tmp_path / "out"), analysis.load(study))
    assert "would replace" in fails(unfinished, tmp_path / "out", "--partial")
    assert studies.read(tmp_path / "out").result


def test_results_of_another_study_are_not_written_over(study, tmp_path):
    collect.collect(study, tmp_path / "out")
    config = analysis.load_config(study)
    copy = shutil.copytree(study, tmp_path / "copy")
    (copy / "config.json").write_text(json.dumps({**config, "data_dir": "/elsewhere", "checkpoint_seconds": 1.0}))
    collect.collect(copy, tmp_path / "out")
    (copy / "config.json").write_text(json.dumps({**config, "seeds": [5]}))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert "holds the results of another study" in fails(copy, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out/config.json").unlink()
    assert "result.json is of an unknown study" in fails(study, tmp_path / "out")
    with pytest.raises(LabError, match="is a working directory"):
        collect.collect(study, study)


def test_what_is_no_study_is_one_line(study, tmp_path):
    assert "holds no measurements" in fails(tmp_path, tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert "analysis.collect: " in fails(study, tmp_path / "file")
