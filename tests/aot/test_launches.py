"""A step of the lab's programs costs accelerators no more than what is committed in tests/benchmarks/launches.json."""

import pytest

from tests.benchmarks import launches
from tests.benchmarks.launches import Wanted

pytestmark = pytest.mark.aot

MORE = 1.05  # what the numbers may grow by; where it is meant, python -m tests.benchmarks.launches makes the row anew
GROWING = (
    *("kernels", "host_issues", "host_issues_per_call", "transposes", "copies", "copied_bytes", "bytes", "memory"),
    *("cycles", "reverse_cycles", "convert_cycles"),
)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted("h100", "batched", 8, 64, "imagenet"),
        Wanted("h100", "map", 1, 64, "imagenet"),
        Wanted("v5e", "map", 8, 64, "imagenet"),
    ],
    ids=lambda wanted: "-".join(map(str, wanted)),
)
def test_a_step_costs_no_more_than_what_is_committed(wanted):
    committed, found = launches.read(launches.FILE)[wanted], launches.in_a_process(wanted)
    assert "error" not in found
    counted = [name for name in GROWING if name in committed]
    assert len(counted) >= 4
    assert not {name: (committed[name], found[name]) for name in counted if found[name] > MORE * committed[name]}
