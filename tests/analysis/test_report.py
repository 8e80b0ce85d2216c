"""The whole page: what it says about studies in every state, and that a browser draws it without the network."""

import json
import re
import shutil
import subprocess

import pytest

from plasticity_jax import analysis
from plasticity_jax.analysis import studies
from plasticity_jax.analysis.effects.judgement import distinct, judge
from plasticity_jax.analysis.report import report
from tests.analysis.test_facts import ENVIRONMENT
from tests.analysis.test_page import Reader
from tests.support import tables

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
ENOUGH = 120  # seconds for a browser on a busy machine

# Records errors and requests of the page from its start.
WATCH = """<script>
window.wrong = [];
addEventListener("error", (event) => wrong.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => wrong.push(`rejection: ${event.reason}`));
addEventListener("securitypolicyviolation", (event) => wrong.push(`request: ${event.blockedURI}`));
</script>"""

# Uses the page as a reader does once all is drawn, and writes what it observed into the page.
USE = """<script>
(async () => {
  while (!document.body.dataset.drawn) await new Promise((resolve) => setTimeout(resolve, 50));
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const runs = document.querySelector("select[data-runs]").closest("section");
  const plot = runs.querySelector(".plot");
  const seen = { charts: figures.map((figure) => figure.querySelectorAll("svg .trace, svg .bars .point").length) };
  Plotly.Fx.hover(plot, [{ curveNumber: 0, pointNumber: 1 }]);
  seen.hover = [...plot.querySelectorAll(".hoverlayer text")].map((text) => text.textContent).join(" ");
  const select = runs.querySelector("select");
  select.value = select.options[1].value;
  select.dispatchEvent(new Event("change"));
  seen.picked = plot.data.filter((trace) => trace.opacity === 1).map((trace) => trace.meta);
  seen.pale = plot.data.filter((trace) => trace.opacity < 0.5).length;
  const button = runs.querySelector(".key button");
  button.click();
  seen.hidden = plot.data.filter((trace) => trace.visible === false).map((trace) => trace.legendgroup);
  button.dispatchEvent(new MouseEvent("dblclick"));
  seen.alone = plot.data.filter((trace) => trace.visible !== false).map((trace) => trace.legendgroup);
  seen.width = document.documentElement.scrollWidth - innerWidth;
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  seen.wrong = wrong;
  const note = document.createElement("pre");
  note.id = "seen";
  note.textContent = JSON.stringify(seen);
  document.body.append(note);
})();
</script>"""


def level(label, seed):
    return 60.0 + seed - (3.5 + 0.5 * seed) * ("pretrain+tune" in label)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study with every kind of file that a directory can hold."""
    root = tmp_path_factory.mktemp("finished")
    study = tables.write(root, tables.preset("multistage", seeds=(0, 1, 2), dataset="cifar10_jpeg"), level)
    cost = {"images": 123456, "images_per_second": 1000.0, "seconds": {"train": 123.0, "compile": 5.0, "total": 200.0}}
    (root / "result.json").write_text(json.dumps({**study.result, "status": "finished", **cost}))
    (root / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return root


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A study of several packs, none of which has finished."""
    root = tmp_path_factory.mktemp("running")
    tables.write(root, tables.preset("architecture", seeds=(0, 1)), level, stages=["pretrain", "tune"], at=0.6)
    (root / "status.json").write_text(json.dumps({"status": "running", "pack": "depth=1", "stage": "tune"}))
    (next(root.glob("*/tune")).parent / "clock.json").write_text('{"train": 61.0, "total": 70.0}')
    return root


@pytest.fixture(scope="module")
def text(finished, running):
    """The page about both studies."""
    return report.report([studies.read(finished), studies.read(running)])


def section(text, anchor):
    """A section of the page, parsed into its text and its tags."""
    inside = text.split(f'<section id="{anchor}"')[1]
    depth = 1
    for tag in re.finditer(r"<(/?)section\b", inside):
        depth += -1 if tag[1] else 1
        if not depth:
            return Reader(f"<section {inside[: tag.start()]}")
    raise AssertionError(f"{anchor} does not end")


def test_what_ran_has_a_row_for_each_study(text):
    ran = section(text, "ran")
    for said in (
        *(
            "multistage",
            "CIFAR-10 (JPEG)",
            "5,000 training images",
            "finished",
            "CPU, 4 threads",
            "c0ffee with changes",
        ),
        *("architecture", "in progress", "depth=1 / tune"),
    ):
        assert said in ran.text
    assert [seen["href"] for name, seen in ran.tags if name == "a"] == ["#study1", "#study2"]


def test_every_link_of_the_page_leads_somewhere(text):
    assert text.count('href="#') > 10
    for anchor in re.findall(r'href="#([^"]*)"', text):
        assert text.count(f'id="{anchor}"') == 1


def test_verdicts_are_those_of_the_claims(text, finished, running):
    said = section(text, "claims").text
    judged = distinct(judge([studies.read(finished), studies.read(running)]))
    verdicts = [each.verdict for each in judged if not each.claim.ours]
    assert "reproduced" in verdicts
    for verdict in ("reproduced", "contradicted", "inconclusive"):
        assert f"{verdict} {verdicts.count(verdict)}" in said


def test_numbers_are_means_and_paired_gaps(text):
    said = section(text, "study1-numbers").text
    assert re.search(r"fresh61\.001\.0058\.52 to 63\.483", said)  # mean, sd, interval, n
    assert "fresh \N{MINUS SIGN} pretrain+tune4.000.50" in said


def test_every_run_is_there_on_test_and_on_training_images(text):
    runs = section(text, "study1-runs")
    assert [seen["data-chart"] for name, seen in runs.tags if name == "figure"] == [
        "runs_test_accuracy",
        "runs_train_accuracy",
    ]
    options = [seen["value"] for name, seen in runs.tags if name == "option"]
    assert {f"{branch}, seed {seed}" for branch in ("fresh", "pretrain+tune") for seed in range(3)} <= set(options)


def test_packs_have_test_and_train_side_by_side(text):
    runs = section(text, "study2-runs")
    charts = [seen["data-chart"] for name, seen in runs.tags if name == "figure"]
    assert len(charts) > 2
    assert [name.replace("_train_", "_test_") for name in charts[1::2]] == charts[::2]


def test_the_config_is_whole_but_for_the_place_of_the_data(text):
    config = section(text, "study1-config").text
    for said in ("train_images 5000", "pack main", "tune / fresh", "learning_rate 0.001", "batch_size 128"):
        assert said in config
    assert "data_dir" not in config


def test_the_config_tells_points_of_a_grid_apart_where_they_differ(tmp_path):
    tables.write(tmp_path, tables.preset("tuning_rate"), level)
    config = section(report.report([studies.read(tmp_path)]), "study1-config").text
    assert config.count("pretrain / pretrain") == 1
    assert "pretrain / pretrain [" not in config
    assert "tune / fresh [rate=1x]" in config and "tune / fresh [rate=10x]" in config


def test_cost_comes_from_the_result_or_from_the_clocks(text):
    cost = section(text, "cost").text
    for said in ("123,456", "1,000", "3 min 20 s", "2 min 03 s", "1 min 01 s", "4 min 30 s"):
        assert said in cost


def test_a_study_in_progress_says_so_and_shows_what_there_is(text):
    assert "1 of 2 finished" in text
    assert "No run has finished yet" in section(text, "study2-numbers").text
    assert [name for name, _ in section(text, "study2-figures").tags if name == "figure"]


def test_a_study_without_an_evaluation_is_still_a_page(tmp_path):
    tables.write(tmp_path, tables.preset("multistage", "digits"), level, stages=["pretrain"])
    for path in tmp_path.rglob("metrics.jsonl"):
        path.write_text(path.read_text().replace("test_accuracy", "x").replace("train_accuracy", "y"))
    text = report.report([studies.read(tmp_path)])
    assert "no test_accuracy yet" in section(text, "study1-figures").text
    assert "evaluated yet" in section(text, "study1-runs").text


def test_a_compact_directory_gives_the_same_page(finished, tmp_path):
    for path in finished.glob("*.json"):
        shutil.copy(path, tmp_path)
    analysis.load(finished).to_parquet(tmp_path / "metrics.parquet")

    def lasting(root):
        return re.sub(r"Made [\d :-]* UTC", "", report.report([studies.read(root)])).replace(str(root), "")

    assert lasting(tmp_path) == lasting(finished)


def test_names_from_a_config_are_text(tmp_path):
    nasty = "<b>&</b><script>wrong.push(1)</script>"
    tables.write(tmp_path, tables.preset("multistage", "digits"), level)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dataset": nasty, "name": nasty}))
    text = report.report([studies.read(tmp_path)])
    assert "<b>&" not in text
    assert "<script>wrong" not in text
    assert nasty in section(text, "ran").text


def test_the_command_writes_one_file_and_says_its_size(finished, tmp_path, capsys):
    out = tmp_path / "pages" / "report.html"
    report.main([str(finished), str(finished), "--out", str(out)])
    assert capsys.readouterr().out == f"{out} ({out.stat().st_size / 1e6:.1f} MB)\n"
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert "1 of 1 finished" in out.read_text()  # a directory that is given twice counts once


@pytest.mark.parametrize("wrong", ["no study", "out is a folder", "out below a file"])
def test_the_command_fails_in_one_line(finished, tmp_path, wrong):
    (tmp_path / "file").touch()
    directory = tmp_path if wrong == "no study" else finished
    out = {"out is a folder": tmp_path, "out below a file": tmp_path / "file" / "x.html"}.get(
        wrong, tmp_path / "x.html"
    )
    with pytest.raises(SystemExit) as stopped:
        report.main([str(directory), "--out", str(out)])
    message = str(stopped.value.code)
    assert message.startswith("analysis.report: ")
    assert "\n" not in message
    assert str(directory if wrong == "no study" else out.parent if wrong == "out below a file" else out) in message


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no chromium or chrome on this machine")
@pytest.mark.parametrize("width", [1300, 500])
def test_a_browser_draws_the_page_and_asks_nobody(text, tmp_path, width):
    page = tmp_path / "page.html"
    page.write_text(text.replace("<body>", f"<body>{WATCH}", 1).replace("</body>", f"{USE}</body>"))
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=60000"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=ENOUGH, check=False
    )
    match = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)
    assert match, f"the page was not drawn: {done.stdout[-500:]} {done.stderr[-2000:]}"
    observed = json.loads(Reader(match[1]).text)
    assert observed["wrong"] == []
    assert observed["requests"] == []
    assert len(observed["charts"]) == text.count("<figure") > 4
    assert min(observed["charts"]) > 0, "an empty chart"
    assert re.search(r"\d\d\.\d\d", observed["hover"]) and "pretrain+tune, seed 0" in observed["hover"]
    assert set(observed["picked"]) == {"pretrain+tune, seed 0"} and observed["pale"] > 0
    assert observed["hidden"] and set(observed["hidden"]) == set(observed["alone"])
    assert observed["width"] <= 0, "the page is wider than the window"
