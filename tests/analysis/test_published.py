"""The published results are complete, and their README agrees with them."""

import re
from pathlib import Path

import pytest

from plasticity_jax import analysis
from plasticity_jax.analysis import figures, studies, verify

ROOT = Path(__file__).parents[2]
SMALL, MEDIUM = FOLDERS = (ROOT / "analysis" / "results", ROOT / "analysis" / "results_medium")

Read = dict[str, studies.Study]


def directories(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/config.json"))


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def read(folder: Path) -> Read:
    return {directory.name: studies.read(directory) for directory in directories(folder)}


def test_every_folder_is_a_study_of_its_name(folder: Path, read: Read) -> None:
    assert read and {path.name for path in folder.iterdir() if path.is_dir()} == set(read)
    for name, study in read.items():
        assert study.name == name
        dataset = "graded" if name == "patterns_graded" else "cifar10_jpeg"
        assert study.config["dataset"] == dataset and not study.config["data_dir"]


def test_those_of_medium_have_its_scale(folder: Path, read: Read) -> None:
    widths = {pack["model"]["width"] for study in read.values() for pack in study.config["packs"]}
    images = {study.config["train_images"] for study in read.values()}
    assert (widths == {16} and images == {0}) == (folder == MEDIUM)


def test_every_figure_is_there(folder: Path, read: Read) -> None:
    for directory in directories(folder):
        drawn = {
            f"{chart.name}{ending}" for chart in figures.charts(read[directory.name]) for ending in (".png", ".svg")
        }
        assert drawn == {path.name for path in directory.iterdir() if path.suffix in (".png", ".svg")}
        assert all((directory / name).stat().st_size > 5000 for name in drawn)


def test_they_are_a_few_megabytes() -> None:
    assert sum(path.stat().st_size for folder in FOLDERS for path in folder.rglob("*") if path.is_file()) < 14e6


def test_the_readme_holds_the_verdicts(folder: Path, read: Read) -> None:
    renew = f"renew it: python -m analysis.claims --markdown analysis/{folder.name}/*/"
    table = [line for line in verify.markdown(verify.judge(read.values())).splitlines() if line]
    text = (folder / "README.md").read_text()
    missing = [line for line in table if line not in text]
    assert not missing, f"{renew}\n" + "\n".join(missing)
    judged = [line for line in text.splitlines() if line.startswith("| ") and "reproduced" in line]
    assert not [line for line in judged if line not in table], renew


def test_each_names_the_clean_commit_that_computed_it_or_is_marked(folder: Path) -> None:
    facts = {directory.name: analysis.load_environment(directory) for directory in directories(folder)}
    assert all(re.fullmatch("[0-9a-f]{40}", each["commit"]) for each in facts.values())
    marked = re.findall(
        r"names the clean commit\s+that computed it, except for: ([\w, ]+)\.", (folder / "README.md").read_text()
    )
    assert {name for name, each in facts.items() if each["dirty"]} == set(", ".join(marked).split(", ")) - {""}


def test_each_study_is_listed_with_its_command(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert all(f"| {directory.name} |" in text for directory in directories(folder))


def test_the_first_page_quotes_them() -> None:
    table = (ROOT / "README.md").read_text().split("| effect | | n |")[1].split("\n\n")[0]
    quoted = re.findall(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", table)
    published = "".join((folder / "README.md").read_text() for folder in FOLDERS).replace("+", "")
    assert len(quoted) > 10
    assert not [numbers for numbers in quoted if "| {} | [{}, {}]".format(*numbers) not in published]
