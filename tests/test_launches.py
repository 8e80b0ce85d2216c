"""The counts of launches and bytes of compiled programs, on programs small enough to count by hand."""

import json
import textwrap

import pytest

from tests.benchmarks import hlo, launches, thunks

# A loop over two runs that is no part of a graph, around a loop over steps that is.
LIST = """\
000: kCommandBuffer [source       | next=001 (1)]
    001: kCustomKernel [source | sink] input_sort_fusion grid: [1, 1, 1] threads: [8, 1, 1]  shared_memory: 0 bytes
002: kWhile         [prev=000 (1) | next=000 (1)]
condition:
    003: kCustomKernel [source | sink] loop_compare_fusion grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory: 0 bytes
  body:
    004: kDynamicSliceFusion [source         | next=006 (1)  ] params=1, results=1
        005: kCopy [source | sink] kCopy
    000: kCommandBuffer      [prev=004 (1)   | sink ]
        006: kWhile        [prev=685 (1)  | sink         ]
condition:
            007: kCustomKernel [source | sink] loop_and_fusion grid: [1, 1, 1] threads: [1, 1, 1]
          body:
            008: kCublasLtMatmul [source | next=009 (1)]
            009: kConvolution [prev=008 (1) | next=010 (1)]
            010: kCustomKernel [prev=009 (1) | next=011 (1)] gemm_fusion_dot_general.0 grid: [1, 1, 1]
            011: kCustomKernel [prev=010 (1) | next=012 (1)] input_transpose_fusion grid: [1, 1, 1] threads: [8, 1, 1]
            012: kCopy [prev=011 (1) | sink] kCopy
013: kCopy [prev=002 (1) | sink] kCopy
"""


def test_launches_of_a_step():
    assert thunks.count(LIST) == {
        "kernels": 6,  # the loop's condition too
        "products": 3,
        "convolutions": 1,
        "transposes": 1,
        "copies": 1,
        "host_issues": 0,
        "host_issues_per_call": 1 + (1 + 1 + 1) + 1,  # a graph; condition, copy and graph; a copy
    }


def test_launches_of_a_step_outside_of_graphs():
    bare = LIST.replace(
        "    000: kCommandBuffer      [prev=004 (1)   | sink ]", "    000: kSequential         [prev=004 | sink]"
    )
    assert thunks.count(bare)["host_issues"] == 6
    assert thunks.count(bare)["kernels"] == 6


def test_a_program_without_a_loop_over_steps():
    with pytest.raises(ValueError, match="no loop over steps"):
        thunks.count(LIST.partition("002:")[0])


TEXT = textwrap.dedent("""\
    HloModule jit_mapped

    %sliced (p0: f32[100,8], p1: s32[]) -> f32[1,8] {
      %p0 = f32[100,8]{1,0} parameter(0)
      %p1 = s32[] parameter(1)
      ROOT %slice = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,8}
    }

    %updated (q0: f32[100,8], q1: f32[1,8], q2: s32[]) -> f32[100,8] {
      %q0 = f32[100,8]{1,0} parameter(0)
      %q1 = f32[1,8]{1,0} parameter(1)
      %q2 = s32[] parameter(2)
      ROOT %update = f32[100,8]{1,0} dynamic-update-slice(%q0, %q1, %q2, %q2)
    }

    %inner (i: (bf16[4])) -> (bf16[4]) {
      %i = (bf16[4]{0}) parameter(0)
      %i.0 = bf16[4]{0} get-tuple-element(%i), index=0
      %convert.7 = bf16[4]{0} convert(%i.0), backend_config={"estimated_cycles":"5"}
      ROOT %i.1 = (bf16[4]{0}) tuple(%convert.7)
    }

    %body (state: (f32[100,8], bf16[4], s32[])) -> (f32[100,8], bf16[4], s32[]) {
      %state = (f32[100,8]{1,0}, bf16[4]{0}, s32[]) parameter(0)
      %big = f32[100,8]{1,0} get-tuple-element(%state), index=0
      %few = bf16[4]{0} get-tuple-element(%state), index=1
      %n = s32[] get-tuple-element(%state), index=2
      %row = f32[1,8]{1,0} fusion(%big, %n), kind=kLoop, calls=%sliced, backend_config={"estimated_cycles":"10"}
      %new.1 = f32[100,8]{1,0} fusion(%big, %row, %n), kind=kLoop, calls=%updated
      %reverse.12 = f32[1,8]{1,0} reverse(%row), dimensions={0}, backend_config={"estimated_cycles":"30"}
      %gemm.1 = bf16[4]{0} custom-call(%few, %reverse.12), custom_call_target="__cublas$lt$matmul"
      %copy.3 = bf16[4]{0} copy(%gemm.1)
      %wrapped = (bf16[4]{0}) tuple(%copy.3)
      %loop = (bf16[4]{0}) while(%wrapped), condition=%yes, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
      %last = bf16[4]{0} get-tuple-element(%loop), index=0
      ROOT %next = (f32[100,8]{1,0}, bf16[4]{0}, s32[]) tuple(%new.1, %last, %n)
    }

    ENTRY %main (a: (f32[100,8], bf16[4], s32[])) -> (f32[100,8], bf16[4], s32[]) {
      %a = (f32[100,8]{1,0}, bf16[4]{0}, s32[]) parameter(0)
      ROOT %steps = (f32[100,8]{1,0}, bf16[4]{0}, s32[]) while(%a), condition=%yes, body=%body
    }
    """)


def test_bytes_of_a_step():
    row, number, few = 32, 4, 8
    read = (row + number) + row + number  # a slice of the large array, of which the update reads no more
    moved = read + 2 * row + 2 * row + (few + row + few) + 2 * few + 3 * 2 * few
    assert hlo.moved(TEXT) == moved
    assert hlo.copied(TEXT) == few


def test_cycles_of_a_step():
    assert hlo.cycles(TEXT) == {"reverse": 30, "convert": 15, "row": 10, "new": 0, "custom-call": 0, "copy": 0}


# ---- the committed file ----

FILE = launches.FILE


def test_what_is_committed_are_programs_of_the_grid():
    rows = launches.read(FILE)
    assert set(rows) <= set(launches.grid()) and len(rows) == len(json.loads(FILE.read_text())["rows"])
    assert all("error" not in row for row in rows.values())


def test_goals_for_eight_runs_of_width_64():
    row = launches.read(FILE)[launches.Wanted("h100", "batched", 8, 64, "imagenet")]
    assert row["kernels"] <= 300 and row["host_issues"] <= 2 and row["host_issues_per_call"] <= 2
    assert row["convolutions"] == row["transposes"] == 0
    assert row["copied_bytes"] < 1000  # numbers of the runs, and no weights


def test_the_table_has_every_row():
    text = launches.table(launches.read(FILE))
    lines = [line for line in text.splitlines() if line.startswith(("| h100", "| v5e"))]
    assert lines and len(lines) == len(launches.read(FILE))


def test_the_readme_has_the_table():
    assert launches.table(launches.read(FILE)) in FILE.with_name("README.md").read_text()
