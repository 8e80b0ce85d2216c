"""The published results are complete, and their README agrees with them."""

import re
from pathlib import Path

import pytest

from plasticity_jax import analysis
from plasticity_jax.analysis import figures, studies, verify

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "analysis" / "results"
STUDIES = sorted(path.parent for path in RESULTS.glob("*/config.json"))
TEXT = RESULTS / "README.md"
RENEW = "renew it: python -m analysis.claims --markdown analysis/results/*/"


@pytest.fixture(scope="module")
def read():
    return {directory.name: studies.read(directory) for directory in STUDIES}


def test_every_folder_is_a_study_of_its_name(read):
    assert {path.name for path in RESULTS.iterdir() if path.is_dir()} == set(read)
    for name, study in read.items():
        assert study.name == name
        dataset = "graded" if name == "patterns_graded" else "cifar10_jpeg"
        assert study.config["dataset"] == dataset and not study.config["data_dir"]


def test_every_figure_is_there(read):
    for directory in STUDIES:
        drawn = {
            f"{chart.name}{ending}" for chart in figures.charts(read[directory.name]) for ending in (".png", ".svg")
        }
        assert drawn == {path.name for path in directory.iterdir() if path.suffix in (".png", ".svg")}
        assert all((directory / name).stat().st_size > 5000 for name in drawn)


def test_they_are_a_few_megabytes():
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 12e6


def test_the_readme_holds_the_verdicts(read):
    table = [line for line in verify.markdown(verify.judge(read.values())).splitlines() if line]
    text = TEXT.read_text()
    missing = [line for line in table if line not in text]
    assert not missing, f"{RENEW}\n" + "\n".join(missing)
    judged = [line for line in text.splitlines() if line.startswith("| ") and "reproduced" in line]
    assert not [line for line in judged if line not in table], RENEW


def test_each_names_the_clean_commit_that_computed_it_or_is_marked():
    facts = {directory.name: analysis.load_environment(directory) for directory in STUDIES}
    assert all(re.fullmatch("[0-9a-f]{40}", each["commit"]) for each in facts.values())
    (marked,) = re.findall(r"names the clean commit\s+that computed it, except for: ([\w, ]+)\.", TEXT.read_text())
    assert {name for name, each in facts.items() if each["dirty"]} == set(marked.split(", "))


def test_each_study_is_listed_with_its_command():
    text = TEXT.read_text()
    assert all(f"| {directory.name} |" in text for directory in STUDIES)
