"""The analysis reads a sweep as if `main` had run each of its studies."""

import json
import shutil
import time

import pandas as pd
import pytest
from ml_collections import ConfigDict

from plasticity_jax import analysis, experiment, study_config
from plasticity_jax.analysis import collect, facts, figures, power, remedies, studies, verify
from plasticity_jax.analysis.report import report
from plasticity_jax.config import plan
from plasticity_jax.configs import base
from plasticity_jax.errors import LabError
from plasticity_jax.launch import jobs, planner
from tests.support import small, swept

# An axis that changes all stages: a job with one word of it calls every run by the word, also those that words share.
WORDS = {
    "low": {"stages.pretrain.optim.learning_rate": 0.1, swept.RATE: 0.1},
    "high": {"stages.pretrain.optim.learning_rate": 0.1, swept.RATE: 0.3},
}


def config(**top) -> ConfigDict:
    return swept.config(grid=(("model.width", (4, 8)), ("speed", WORDS)), control="fresh", strategy="loop", **top)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(main's directory, a sweep of the same study with a job for each point)."""
    folder = tmp_path_factory.mktemp("sweeps")
    small.run(config(seeds=(3,)), folder / "main", dataset=None)
    planned = {"mine": study_config.parse(config(seeds=(3,)))}
    for job in swept.planned(folder / "sweep", planned, planner.Budget(runs=1)):
        experiment.run_study(jobs.study(folder / "sweep", job), jobs.directory(folder / "sweep", job))
    return folder / "main", folder / "sweep"


def same(frame: pd.DataFrame, other: pd.DataFrame) -> None:
    assert list(frame) == list(other)
    frames = [each.sort_values(list(other)[:-1], ignore_index=True) for each in (frame, other)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


@pytest.mark.long
def test_the_table_is_that_of_main(trained):
    main, sweep = trained
    assert len(jobs.read(sweep)) == 4
    alone = analysis.load(main)
    assert "pretrain,width=4/seed3" in set(alone.run)  # shared by both words, so it is called by neither
    same(analysis.load(sweep / "mine"), alone)
    both = analysis.load(sweep)
    assert list(both)[0] == "study" and set(both.study) == {"mine"}
    same(both.drop(columns="study"), alone)
    assert list(analysis.load(sweep, main))[:2] == ["directory", "study"]


@pytest.mark.slow
def test_the_result_is_that_of_main(trained):
    main, sweep = trained
    together, alone = analysis.load_result(sweep / "mine"), analysis.load_result(main)
    assert together["runs"] == alone["runs"]
    for key in ("status", "dataset", "branches", "gap", "contrasts"):
        assert together[key] == alone[key]
    assert together["seconds"].keys() == alone["seconds"].keys()
    assert analysis.load_config(sweep / "mine") == analysis.load_config(main)
    environment, other = analysis.load_environment(sweep / "mine"), analysis.load_environment(main)
    assert environment["choices"] == other["choices"] and environment["dataset"] == other["dataset"]


@pytest.mark.slow
def test_a_sweep_in_progress(trained, tmp_path):
    sweep = tmp_path / "sweep"
    shutil.copytree(trained[1], sweep)
    whole = analysis.load(sweep / "mine")
    first, second, *_ = jobs.read(sweep)
    (jobs.directory(sweep, first) / "result.json").unlink()
    shutil.rmtree(jobs.directory(sweep, second))
    frame = analysis.load(sweep)
    assert 0 < len(frame) < len(whole)
    with pytest.raises(LabError, match="2 of 4 jobs of .*mine have not finished; see plasticity status"):
        analysis.load_result(sweep / "mine")
    study = studies.read(sweep / "mine")
    assert study.result is None
    about = facts.read(study)
    assert (about.status, about.detail) == ("in progress", "2 of 4 jobs have finished")
    with (jobs.directory(sweep, first) / "main/tune/metrics.jsonl").open("a") as file:
        file.write('{"run": "fresh/seed0", "se')
    assert len(analysis.load(sweep)) == len(frame)


@pytest.mark.slow
def test_a_run_of_two_jobs_counts_once_and_by_the_longer(trained, tmp_path):
    sweep = tmp_path / "sweep"
    shutil.copytree(trained[1], sweep)
    same_run = [job for job in jobs.read(sweep) if job.pack == "width=4"]
    assert len(same_run) == 2
    table = jobs.directory(sweep, same_run[0]) / "main/pretrain/metrics.jsonl"
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:2]))
    same(analysis.load(sweep / "mine"), analysis.load(trained[0]))


@pytest.mark.long
@pytest.mark.slow
def test_figures_claims_and_collect_take_a_study_of_a_sweep(trained, tmp_path):
    study = trained[1] / "mine"
    figures.main([str(trained[1]), "--out", str(tmp_path / "figures")])
    assert list((tmp_path / "figures").glob("*.png"))
    verify.main([str(study), "--json", str(tmp_path / "claims.json")])
    assert (tmp_path / "claims.json").exists()
    collect.collect(study, tmp_path / "small")
    same(analysis.load(tmp_path / "small"), analysis.load(trained[0]))
    assert analysis.load_result(tmp_path / "small")["runs"] == analysis.load_result(trained[0])["runs"]
    report.main([str(trained[1]), "--out", str(tmp_path / "report.html")])
    assert "finished" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_mistakes(trained, tmp_path):
    sweep = trained[1]
    for load in (analysis.load_result, analysis.load_config, analysis.load_environment):
        with pytest.raises(LabError, match="is a sweep; give one of its studies: .*mine"):
            load(sweep)
    swept.planned(tmp_path, config())
    with pytest.raises(LabError, match="holds no measurements"):
        analysis.load(tmp_path)
    with pytest.raises(LabError, match="no job of .* has begun"):
        analysis.load_environment(tmp_path / "study")


def test_several_studies(tmp_path):
    swept.planned(tmp_path, base.sweep({"a": config(), "b": config(seeds=(5,))}))
    for job in jobs.read(tmp_path):
        directory = jobs.directory(tmp_path, job) / "main/tune"
        directory.mkdir(parents=True)
        row = dict(run=f"fresh/seed{job.seeds[0]}", seed=job.seeds[0], branch="fresh", hparams={}, stage="tune")
        (directory / "metrics.jsonl").write_text(
            json.dumps({**row, "epoch": 0.0, "step": 0, "metric": "x", "value": 1})
        )
    frame = analysis.load(tmp_path)
    assert frame.groupby("study").seed.first().to_dict() == {"a": 0, "b": 5}


def test_commands_take_all_studies_of_a_sweep_that_have_begun(tmp_path, capsys):
    swept.planned(tmp_path, base.sweep({name: config(name=name) for name in ("a", "b", "later")}))
    out = ["--out", str(tmp_path / "out.html")]
    commands = {figures.main: out, verify.main: [], power.main: [], remedies.main: out, report.main: out}
    for command, options in commands.items():
        with pytest.raises(SystemExit, match=f"no study of {tmp_path} has measurements yet; plasticity local"):
            command([str(tmp_path), *options])
    for job in jobs.read(tmp_path):
        if job.study != "later":
            directory = jobs.directory(tmp_path, job) / "main/tune"
            directory.mkdir(parents=True)
            row = dict(run=f"fresh/seed{job.seeds[0]}", seed=job.seeds[0], branch="fresh", hparams={}, stage="tune")
            row |= {"epoch": 0.0, "step": 0, "metric": "test_accuracy", "value": 1.0}
            (directory / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    verify.main([str(tmp_path), str(tmp_path / "a")])
    told = capsys.readouterr().out
    assert [told.count(f"no claims about study {name}") for name in ("a", "b", "later")] == [1, 1, 0]


def test_groups_of_a_stage_come_together(tmp_path):
    study = config(seeds=(3,))
    study.stages.tune.branches["pretrain+tune"].batch_size = 32
    swept.planned(tmp_path, {"mine": study_config.parse(study)})
    for job in jobs.read(tmp_path):
        groups = plan.unfold(jobs.study(tmp_path, job).packs[0], job.seeds)
        assert [group.name for group in groups] == ["pretrain", "tune,1", "tune,2"]
        for group in groups:
            table = jobs.directory(tmp_path, job) / "main" / group.name / "metrics.jsonl"
            table.parent.mkdir(parents=True)
            run = group.runs[0]
            row = dict(run=run.id, seed=run.seed, branch=run.branch, hparams=dict(run.hparams), stage=run.stage.name)
            table.write_text(json.dumps({**row, "epoch": 0.0, "step": 0, "metric": "x", "value": 1}) + "\n")
    frame = analysis.load(tmp_path / "mine")
    assert set(zip(frame.stage, frame.branch, strict=True)) == {
        ("pretrain", "pretrain"),
        ("tune", "fresh"),
        ("tune", "pretrain+tune"),
    }


def test_pasts_tell_runs_apart_whatever_their_company():
    study = study_config.parse(config())
    (pack, _) = study.packs
    whole = plan.by_past(plan.unfold(pack, study.seeds))
    part = jobs.restrict(study, pack.name, [1], [1])
    for past, run in plan.by_past(plan.unfold(part.packs[0], part.seeds)).items():
        assert (whole[past].stage, whole[past].seed) == (run.stage, run.seed)


@pytest.mark.long
def test_a_thousand_jobs_are_read_in_seconds(tmp_path):
    """200,000 rows."""
    rates = tuple(0.001 * (i + 1) for i in range(500))
    study = swept.config(grid=((swept.RATE, rates),))
    for job in swept.planned(tmp_path, study, planner.Budget(runs=1)):
        directory = jobs.directory(tmp_path, job) / "main/tune"
        directory.mkdir(parents=True)
        point = {"learning_rate": rates[job.points[0]]}
        run = f"fresh,learning_rate={rates[job.points[0]]}/seed{job.seeds[0]}"
        row = dict(run=run, seed=job.seeds[0], branch="fresh", hparams=point, stage="tune")
        rows = [{**row, "epoch": i / 9, "step": i, "metric": "test_accuracy", "value": 0.5} for i in range(200)]
        (directory / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    start = time.process_time()
    frame = analysis.load(tmp_path)
    assert time.process_time() - start < 60
    assert len(frame) == 200_000 and frame.run.nunique() == 1000
