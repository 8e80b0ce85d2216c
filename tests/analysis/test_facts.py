"""What is known of a study besides its measurements, whatever files its directory has."""

import json

import pytest

from plasticity_jax.analysis import facts
from tests.support import tables

ENVIRONMENT = {
    "packages": {"jax": "0.10.2", "flax": "0.12.8", "numpy": "2"},
    "commit": "c0ffee",
    "dirty": True,
    "backend": "cpu",
    "device_kind": "cpu",
    "devices": 2,
    "cpu_threads": 4,
}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "study"


def write(root, **files):
    for name, content in files.items():
        (root / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))


def study(root, **how):
    config = tables.preset("multistage", "digits", seeds=(0, 1))
    return tables.write(root, config, lambda label, seed: 50.0 + seed, **how)


def test_a_finished_study_says_what_it_cost(root):
    example = study(root)
    result = {**example.result, "status": "finished", "images": 1000, "images_per_second": 250.0}
    write(root, result={**result, "seconds": {"train": 4.0, "total": 5.0}}, environment=ENVIRONMENT)
    write(root, status={"status": "finished", "compilations": 3, "from_cache": 2})
    (root / "main" / "clock.json").write_text('{"train": 99.0}')  # the result takes precedence
    about = facts.read(facts.studies.read(root))
    assert (about.status, about.detail, about.runs, about.failed) == ("finished", "", 4, 0)
    assert (about.images, about.images_per_second, about.seconds) == (1000, 250.0, {"train": 4.0, "total": 5.0})
    assert (about.compilations, about.from_cache) == (3, 2)
    assert (about.device, about.versions) == ("CPU, 4 threads", "jax 0.10.2, flax 0.12.8")
    assert (about.commit, about.changed) == ("c0ffee", True)


def test_failed_runs_are_counted(root):
    assert facts.read(study(root, failed=["fresh/seed1"])).failed == 1


def test_clocks_of_all_packs_add_up_while_there_is_no_result(root):
    example = study(root, stages=["pretrain", "tune"], at=0.5)
    (root / "other").mkdir()
    for pack, seconds in [("main", {"train": 2.0, "total": 3.0}), ("other", {"train": 4.0})]:
        (root / pack / "clock.json").write_text(json.dumps(seconds))
    write(root, status={"status": "running", "pack": "main", "stage": "tune", "time": "2026-01-02T03:04:05+00:00"})
    about = facts.read(example)
    assert about.seconds == {"train": 6.0, "total": 3.0}
    assert about.status == "in progress"
    assert about.detail == "main / tune, since 2026-01-02 03:04:05 UTC"
    assert about.images is None


def test_runs_that_others_continue_from_are_no_runs_of_the_study(root):
    assert facts.read(study(root, stages=["pretrain"])).runs == 0
    assert facts.read(study(root, stages=["pretrain", "tune"])).runs == 4


@pytest.mark.parametrize(
    "status, expected",
    [
        ({"status": "preempted"}, ("stopped early", "")),
        ({"status": "failed", "error": "the disk is full"}, ("failed", "the disk is full")),
        ("{damaged", ("in progress", "")),
        ("[]", ("in progress", "")),
    ],
)
def test_the_state_of_a_study_without_a_result(root, status, expected):
    example = study(root, stages=["pretrain"])
    write(root, status=status)
    about = facts.read(example)
    assert (about.status, about.detail) == expected


def test_a_bare_directory_has_empty_facts(root):
    about = facts.read(study(root, stages=["pretrain"]))
    assert (about.device, about.versions, about.commit, about.seconds) == ("", "", "", {})
    assert about.compilations is None


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({"cpu_threads": 1}, "CPU, 1 thread"),
        ({"backend": "gpu", "device_kind": "NVIDIA H200", "devices": 1}, "1 \N{MULTIPLICATION SIGN} NVIDIA H200"),
    ],
)
def test_devices_have_names(root, changed, expected):
    found = study(root, stages=["pretrain"])
    write(root, environment={**ENVIRONMENT, **changed})
    assert facts.read(found).device == expected


@pytest.mark.parametrize(
    "seconds, expected",
    [(1.24, "1.2 s"), (41.4, "41 s"), (65.0, "1 min 05 s"), (3599.6, "1 h 00 min"), (11220.0, "3 h 07 min")],
)
def test_durations_for_people(seconds, expected):
    assert facts.duration(seconds) == expected
