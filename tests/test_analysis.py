"""Reading working directories, finished or not, and drawing their curves."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

import analysis
from analysis import curves
from plasticity_jax.errors import LabError

TOP = {"pretrain": 50.0, "fresh": 80.0, "pretrain+tune": 75.0}


def record(name, branch, after, epochs, until_accuracy=0, steps=0):
    lengths = dict(epochs=epochs, until_accuracy=until_accuracy, steps=steps)
    return dict(name=name, branch=branch, after=after, data=dict(label_noise=0.0), **lengths)


PLAN = [
    record("pretrain", "pretrain", "init", 5),
    record("tune", "fresh", "init", 10),
    record("tune", "pretrain+tune", "pretrain", 10),
]


def write_config(root: Path, plans=(PLAN,), packs=("main",), **changed) -> None:
    model = {"name": "resnet", "depth": 1, "width": 8, "stem": "cifar", "norm": "batch", "dtype": "float32"}
    written = [{"name": name, "model": model, "plans": [[[], plan] for plan in plans]} for name in packs]
    study = dict(dataset="digits", train_images=0, seeds=[0, 1, 2], window=0.2, control="fresh", packs=written)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps({**study, **changed}))


def write_rows(root: Path, stage, branch, values, pack="main", seed=0, **hparams) -> str:
    """Append the rows of one run, an evaluation per epoch; returns the run."""
    run = ",".join([branch, *(f"{key}={value}" for key, value in hparams.items())]) + f"/seed{seed}"
    folder = root / pack / stage
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as file:
        for epoch, value in enumerate(values):
            for metric, number in [("test_accuracy", value), ("train_loss", 1.0)]:
                row = dict(run=run, seed=seed, branch=branch, hparams=hparams, stage=stage, epoch=float(epoch))
                file.write(json.dumps({**row, "step": 7 * epoch, "metric": metric, "value": number}) + "\n")
    return run


def write_study(root: Path, packs=("main",)) -> None:
    """Three seeds of PLAN; seed s is s points better, and the gap is 5, 6 and 7 points."""
    write_config(root, packs=packs)
    runs = []
    for pack in packs:
        for stage in PLAN:
            for seed in range(3):
                top = TOP[stage["branch"]] + seed - seed * (stage["branch"] == "pretrain+tune")
                ramp = [top - 30 * (epoch == 0) for epoch in range(stage["epochs"] + 1)]
                run = write_rows(root, stage["name"], stage["branch"], ramp, pack, seed)
                if stage["name"] == "tune":
                    name = f"{pack}/{run}" if len(packs) > 1 else run
                    known = dict(run=name, pack=pack, seed=seed, branch=stage["branch"], hparams={})
                    runs.append({**known, "status": "finished", "test_accuracy": top})
    (root / "result.json").write_text(json.dumps({"runs": runs, "gap": None}))


def thick(axes):
    """label -> the means that are drawn; those without a label under "_"."""
    found = {}
    for line in axes.lines:
        if line.get_linewidth() > 1:
            label = line.get_label()
            found.setdefault("_" if label.startswith("_") else label, []).append(line)
    return found


def test_load_gives_a_long_table(tmp_path):
    write_study(tmp_path)
    frame = analysis.load(tmp_path)
    assert list(frame.columns) == ["pack", "run", "seed", "branch", "stage", "epoch", "step", "metric", "value"]
    assert len(frame) == 2 * 3 * (6 + 11 + 11)
    last = frame[(frame.metric == "test_accuracy") & (frame.stage == "tune") & (frame.epoch == 10)]
    assert dict(zip(last.run, last.value, strict=True)) == {
        **{f"fresh/seed{s}": 80.0 + s for s in range(3)},
        **{f"pretrain+tune/seed{s}": 75.0 for s in range(3)},
    }
    assert (frame.step == 7 * frame.epoch).all()
    assert set(frame.pack) == {"main"}


def test_load_has_a_column_for_each_hyper_parameter(tmp_path):
    write_rows(tmp_path, "tune", "fresh", [1.0], **{"optim.name": "adam", "lr": 0.1})
    write_rows(tmp_path, "tune", "warm", [2.0], lr=0.2)
    frame = analysis.load(tmp_path)
    assert list(frame.columns[4:6]) == ["optim.name", "lr"]
    assert frame.groupby("lr").value.max().to_dict() == {0.1: 1.0, 0.2: 2.0}
    assert frame.set_index("branch")["optim.name"].isna().to_dict() == {"fresh": False, "warm": True}


def test_load_tells_several_directories_apart(tmp_path):
    for name, value in [("a", 1.0), ("b", 2.0)]:
        write_rows(tmp_path / name, "tune", "fresh", [value])
    frame = analysis.load(tmp_path / "a", str(tmp_path / "b"))
    assert frame[frame.metric == "test_accuracy"].set_index("directory").value.to_dict() == {
        str(tmp_path / "a"): 1.0,
        str(tmp_path / "b"): 2.0,
    }


def test_load_reads_a_run_in_progress(tmp_path):
    write_rows(tmp_path, "tune", "fresh", [1.0, 2.0])
    whole = analysis.load(tmp_path)
    with (tmp_path / "main/tune/metrics.jsonl").open("a") as file:
        file.write('{"run": "fresh/seed0", "se')
    assert analysis.load(tmp_path).equals(whole)


def test_load_keeps_what_is_not_finite(tmp_path):
    write_rows(tmp_path, "tune", "fresh", [1.0, float("nan")])
    assert np.isnan(analysis.load(tmp_path).value.astype(float)).sum() == 1


@pytest.mark.parametrize("content", [None, ""])
def test_load_of_nothing_is_a_clear_error(tmp_path, content):
    if content is not None:
        (tmp_path / "main/tune").mkdir(parents=True)
        (tmp_path / "main/tune/metrics.jsonl").write_text(content)
    with pytest.raises(LabError, match=f"{tmp_path} holds no measurements"):
        analysis.load(tmp_path)


def test_load_result_and_config(tmp_path):
    with pytest.raises(LabError, match="has not finished"):
        analysis.load_result(tmp_path)
    with pytest.raises(LabError, match="--workdir"):
        analysis.load_config(tmp_path)
    write_study(tmp_path)
    assert len(analysis.load_result(tmp_path)["runs"]) == 6
    assert analysis.load_config(tmp_path)["dataset"] == "digits"
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(LabError, match="no JSON"):
        analysis.load_result(tmp_path)


def test_curves_put_pretraining_before_zero(tmp_path):
    write_study(tmp_path)
    axes = curves.draw(tmp_path).axes[0]
    means = thick(axes)
    assert set(means) == {"fresh", "pretrain+tune", "_"}
    (fresh,), (tuned,), (pretrained,) = means["fresh"], means["pretrain+tune"], means["_"]
    assert list(pretrained.get_xdata()) == [-5, -4, -3, -2, -1, 0]
    assert list(fresh.get_xdata()) == list(tuned.get_xdata()) == list(range(11))
    assert fresh.get_ydata()[-1] == 81.0 and tuned.get_ydata()[-1] == 75.0 and pretrained.get_ydata()[-1] == 51.0
    assert pretrained.get_color() == tuned.get_color() != fresh.get_color()
    assert sum(line.get_linewidth() < 0.8 and len(line.get_xdata()) > 2 for line in axes.lines) == 9


def test_curves_say_gap_data_scale_and_window(tmp_path):
    write_study(tmp_path)
    axes = curves.draw(tmp_path).axes[0]
    assert axes.get_title(loc="left").split() == (
        "fresh \N{MINUS SIGN} pretrain+tune: 6.00 points (95% interval 3.52 to 8.48, n = 3)".split()
    )
    assert [text.get_text() for text in axes.texts] == ["digits, resnet depth 1 width 8 stem cifar, 3 seeds"]
    (box,) = [patch for patch in axes.patches if patch.get_label() == "metric: last 20%"]
    assert (box.get_x(), box.get_width()) == (8.0, 2.0)


def test_curves_have_a_panel_for_each_pack(tmp_path):
    write_study(tmp_path, packs=("narrow", "wide"))
    figure = curves.draw(tmp_path)
    assert len(figure.axes) == 2
    assert all("6.00 points" in axes.get_title(loc="left") for axes in figure.axes)


def test_curves_of_a_run_in_progress(tmp_path):
    """Pretraining stands at epoch 2 of 5: it is drawn where it will be, and there is no gap yet."""
    write_config(tmp_path, train_images=400)
    write_rows(tmp_path, "pretrain", "pretrain", [10.0, 30.0, 40.0])
    axes = curves.draw(tmp_path).axes[0]
    assert list(thick(axes)["pretrain"][0].get_xdata()) == [-5, -4, -3]
    assert axes.get_title(loc="left") == ""
    assert "400 training images" in axes.texts[0].get_text()


def test_a_chain_of_stages_ends_at_zero(tmp_path):
    plan = [
        record("one", "a", "init", 2),
        record("two", "a", "one@2", 3),
        record("tune", "a", "two/a", 4),
        record("tune", "b", "init", 4),
    ]
    write_config(tmp_path, [plan])
    for stage in plan:
        write_rows(tmp_path, stage["name"], stage["branch"], [50.0] * (stage["epochs"] + 1))
    means = thick(curves.draw(tmp_path).axes[0])
    first = sorted(line.get_xdata()[0] for line in sum(means.values(), []))
    assert first == [-5, -3, 0, 0]


def test_stages_whose_length_only_the_data_tell_end_at_zero(tmp_path):
    plan = [record("pretrain", "pretrain", "init", 99, until_accuracy=1), record("tune", "a", "pretrain", 4)]
    write_config(tmp_path, [plan])
    for seed, epochs in enumerate([3, 6]):
        write_rows(tmp_path, "pretrain", "pretrain", [50.0 + seed] * (epochs + 1), seed=seed)
        write_rows(tmp_path, "tune", "a", [60.0] * 5, seed=seed)
    axes = curves.draw(tmp_path).axes[0]
    assert sorted(
        (line.get_xdata()[0], line.get_xdata()[-1]) for line in axes.lines if line.get_linewidth() == 0.7
    ) == [
        (-6, 0),
        (-3, 0),
        (0, 4),
        (0, 4),
    ]
    (pretrained,) = thick(axes)["_"]
    assert list(pretrained.get_xdata()) == [-3, -2, -1, 0]  # only where both seeds are
    assert set(pretrained.get_ydata()) == {50.5}


def test_a_grid_has_a_colour_per_point_and_grey_for_what_they_share(tmp_path):
    plans = [[record("pretrain", "p", "init", 2), record("tune", "t", "pretrain", 4)]] * 2
    write_config(tmp_path, plans)
    write_rows(tmp_path, "pretrain", "p", [50.0] * 3)
    for lr in (0.1, 0.2):
        write_rows(tmp_path, "tune", "t", [60.0] * 5, lr=lr)
    means = thick(curves.draw(tmp_path).axes[0])
    colours = {label: to_hex(lines[0].get_color()) for label, lines in means.items()}
    assert set(colours) == {"p", "t,lr=0.1", "t,lr=0.2"}
    assert len(set(colours.values())) == 3
    assert colours["p"] == curves.SHARED


def test_a_failed_run_is_drawn_but_not_averaged(tmp_path):
    write_study(tmp_path)
    result = analysis.load_result(tmp_path)
    result["runs"][2].update(status="failed", test_accuracy=None)
    assert result["runs"][2]["run"] == "fresh/seed2"
    (tmp_path / "result.json").write_text(json.dumps(result))
    axes = curves.draw(tmp_path).axes[0]
    assert thick(axes)["fresh"][0].get_ydata()[-1] == 80.5
    assert "n = 2" in axes.get_title(loc="left")
    assert sum(line.get_linewidth() == 0.7 for line in axes.lines) == 9


def test_average_interpolates_where_evaluations_differ():
    x, y = curves.average(
        [(np.array([0.0, 4.0]), np.array([0.0, 8.0])), (np.array([1.0, 2.0]), np.array([10.0, 10.0]))]
    )
    assert list(x) == [1.0, 2.0]
    assert list(y) == [6.0, 7.0]


def test_the_command_writes_a_picture(tmp_path, capsys):
    write_study(tmp_path)
    out = tmp_path / "pictures/curves.png"
    curves.main([str(tmp_path), "--out", str(out)])
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["nothing there", "no evaluation", "ending"])
def test_the_command_fails_in_one_line(tmp_path, wrong):
    if wrong != "nothing there":
        write_config(tmp_path)
        write_rows(tmp_path, "tune", "fresh", [float("nan")] if wrong == "no evaluation" else [1.0])
    with pytest.raises(SystemExit) as stopped:
        curves.main([str(tmp_path), "--out", str(tmp_path / f"x.{'what' if wrong == 'ending' else 'png'}")])
    assert str(stopped.value).startswith("analysis.curves: ")
    assert "\n" not in str(stopped.value)
