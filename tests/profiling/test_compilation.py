"""Compiling a study for devices on which nothing can run; here the CPU stands in for them."""

import dataclasses
import re

import jax
import pytest

from plasticity_jax import target
from plasticity_jax.errors import LabError, RoomError
from plasticity_jax.parallel import memory, programs
from plasticity_jax.profiling import compilation, memory_check
from tests.support import small

ROW = re.compile(r"^  (\w+ \w+) +(\S+ s|\(as above\)) +(\S+ .?B) +(\S+ .?B) +([\d,?]+)$", re.MULTILINE)


def compiled(directory, capsys, space=10**9, **fields):
    """The printed text for a study on a device with `space` bytes."""
    with target.using(target.Target((jax.devices()[0],), space)):
        assert small.run(small.config(**{"strategy": "map"} | fields), directory) == {}
    assert not list(directory.iterdir())
    return capsys.readouterr().out


def test_every_program_has_a_line_and_nothing_is_written(tmp_path, capsys):
    text = compiled(tmp_path, capsys)
    assert f"device: 1 x {jax.devices()[0].device_kind} (cpu); strategy map; float32" in text
    assert "mesh: run 1 x batch 1; 1 GB on each device, 10 kB of it for images" in text
    rows = {row[1]: row for row in ROW.finditer(text)}
    assert [*rows] == [f"{stage} {kind}" for stage in ("pretrain", "tune") for kind in ("begin", "advance", "evaluate")]
    assert all(row[2].endswith(" s") for row in rows.values())
    runs = int(rows["tune advance"][5].replace(",", ""))
    assert 10_000 < runs < 10**9 // memory.size(jax.ShapeDtypeStruct((64, 8), "float32"))  # the first weights alone
    assert re.search(r"memory: \S+ kB per run, \S+ kB in all, of 1 GB", text)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("runs", [3, 8])
def test_as_many_runs_fit_as_it_says(devices, runs):
    line = memory.Line(fixed=1000, per_run=70)
    need = memory_check.Need("tune", "advance", runs, line, line)
    with target.using(target.Target(tuple(jax.devices()[:devices]), None)):
        assert line(7) <= 1500 < line(8)
        assert compilation.fitting(need, "cores", 1500) == 7 * devices
        assert compilation.fitting(need, "cores", 900) == 0


def test_a_plan_that_does_not_fit_is_refused_after_its_lines(tmp_path, capsys):
    with pytest.raises(RoomError, match="^main: stage tune: 4 runs need .* so [123] would fit"):
        compiled(tmp_path, capsys, 54_000)
    assert len(ROW.findall(capsys.readouterr().out)) == 6


def test_a_device_that_does_not_tell(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: None)
    text = compiled(tmp_path, capsys)
    assert "an unknown memory on each device" in text and "memory: not known" in text
    assert {row[5] for row in ROW.finditer(text)} == {"?"}


def test_a_program_that_is_refused_leaves_the_others(tmp_path, capsys, monkeypatch):
    whole = programs.Programs.program

    def refuse(self, kind, *args):
        if kind == "advance":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory:\n21 G of 15 G")
        return whole(self, kind, *args)

    monkeypatch.setattr(programs.Programs, "program", refuse)
    with pytest.raises(LabError, match="^main: the compiler refused pretrain advance, tune advance$"):
        compiled(tmp_path, capsys)
    text = capsys.readouterr().out
    assert re.search(r"tune advance +refused: RESOURCE_EXHAUSTED: Ran out of memory: 21 G of 15 G\n", text)
    assert len(ROW.findall(text)) == 4


def test_what_tiles_leave_empty_counts_for_each_run(tmp_path, capsys, monkeypatch):
    """Arguments that take more memory than their elements, as on a TPU."""
    whole, pairs = memory_check.need_of, []

    def both(call, program, times, context):
        padded = dataclasses.replace(program, arguments=program.arguments + 10_000 * len(times.group.runs))
        pairs.append((whole(call, program, times, context), whole(call, padded, times, context)))
        return pairs[-1][0]

    monkeypatch.setattr(memory_check, "need_of", both)
    compiled(tmp_path, capsys)
    assert all(9_900 < padded.line.per_run - plain.line.per_run <= 10_000 for plain, padded in pairs)
    assert len(pairs) == 6 and all(padded.line.fixed == plain.line.fixed for plain, padded in pairs)
