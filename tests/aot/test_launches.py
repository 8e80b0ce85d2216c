"""A step of the lab's programs costs accelerators no more than what is committed in tests/benchmarks/launches.json."""

import pytest

from tests.aot import programs
from tests.benchmarks import launches
from tests.benchmarks.launches import Wanted

pytestmark = [pytest.mark.aot, pytest.mark.usefixtures("compile_anew")]

MORE = 1.05  # factor of allowed growth; if it is intended, python -m tests.benchmarks.launches renews the row
GROWING = (
    *("kernels", "host_issues", "host_issues_per_call", "transposes", "copies", "copied_bytes", "bytes", "memory"),
    *("cycles", "reverse_cycles", "convert_cycles"),
)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        pytest.param("h100", Wanted("h100", "batched", 8, 64, "imagenet"), id="h100"),
        pytest.param("h100:4", Wanted("h100", "map", 1, 64, "imagenet"), id="h100:4"),  # for one device
        pytest.param("v5e:1x1", Wanted("v5e", "map", 8, 64, "imagenet"), id="v5e:1x1"),
    ],
)
def test_a_step_costs_no_more_than_what_is_committed(name, wanted):
    """On one device that is the program of `test_aot`; XLA lists launches on a GPU only by flags of a whole process."""
    compiled = programs.whole(name) if name in programs.ALONE else None
    if compiled and launches.is_tpu(wanted):
        measured = launches.of_tpu(wanted, compiled.texts["advance"], compiled.footprints["advance"].total)
    elif compiled and compiled.launched:
        row = wanted, compiled.texts["advance"], compiled.footprints["advance"].total
        measured = launches.of_gpu(*row, compiled.launched)
    else:
        measured = launches.in_a_process(wanted)
    committed = launches.read(launches.FILE)[wanted]
    assert "error" not in measured
    counted = [name for name in GROWING if name in committed]
    assert len(counted) >= 4
    assert not {name: (committed[name], measured[name]) for name in counted if measured[name] > MORE * committed[name]}
