"""Checkpoints come back bit for bit, or not at all."""

import builtins
import gc
import json
import logging
import os
import shutil
import tempfile
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax.errors import CheckpointError
from plasticity_jax.storage.checkpoints import Checkpoints, Misfit
from tests.support import nasty
from tests.support.disks import disk_of


def tree(number):
    rng = np.random.default_rng(number)
    params = {"dense": {"kernel": jnp.asarray(rng.normal(size=(3, 40, 7)), jnp.float32)}}
    return {
        "params": params,
        "stats": {},
        "opt": optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
        "noise": rng.integers(2**32, size=20_000, dtype=np.uint32),
        "half": jnp.asarray(rng.normal(size=(5,)), jnp.bfloat16),
        "odd": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "done": np.array([True, False, True]),
        "step": np.int32(number),
        "big": np.array(2**60 + number),
        "none": np.zeros((2, 0), np.uint8),
    }


def small(number):
    return {"step": np.int32(number), "some": np.arange(number, number + 3.0)}


def like(example):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), example)


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert isinstance(a, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def where(tmp_path):
    """A function that opens checkpoints in one directory, and closes them at the end."""
    opened = []

    def where(keep=None, note=lambda line: pytest.fail(line)):
        opened.append(Checkpoints(tmp_path / "checkpoints", keep, note))
        return opened[-1]

    yield where
    for one in opened:
        one.close()


def saved(where, *numbers, keep=None):
    checkpoints = where(keep)
    for number in numbers:
        checkpoints.save(number, tree(number), {"at": number})
    checkpoints.close()
    return checkpoints.directory


def test_round_trip_is_bit_for_bit(where):
    saved(where, 3)
    restored, meta = where().restore(3, like(tree(3)))
    same(restored, tree(3))
    assert meta == where().meta(3) == {"at": 3}


@pytest.mark.parametrize("name", nasty.PATHS, ids=range(len(nasty.PATHS)))
def test_any_path_will_do(name, tmp_path, monkeypatch):
    temporary = tmp_path / ("job[1]" if "[" in name else "temporary")  # some batch systems name theirs like job[1]
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    first, again = (Checkpoints(tmp_path / name, 2, pytest.fail) for _ in range(2))
    first.save(1, small(1), {"n": 1})
    number, back, meta = again.latest(like(small(1)))
    assert (number, meta) == (1, {"n": 1})
    same(back, small(1))
    first.close()
    again.close()
    assert not list(temporary.iterdir())


def test_a_path_like_a_pattern_takes_nothing_of_others(tmp_path):
    for name, number in (("axb", 1), ("a*b", 2), ("a[x]b", 3)):
        checkpoints = Checkpoints(tmp_path / name, None, pytest.fail)
        checkpoints.save(0, small(number), {})
        same(checkpoints.restore(0, like(small(number)))[0], small(number))
        checkpoints.close()


def test_meta_may_hold_what_json_can(where):
    checkpoints = where()
    checkpoints.save(
        0, {"x": np.ones(1)}, {"nan": float("nan"), "list": [1, 2.5, None, "\u00fc"], "4": {"b": True, "a": 1}}
    )
    meta = checkpoints.meta(0)
    assert meta == {"nan": None, "list": [1, 2.5, None, "\u00fc"], "4": {"b": True, "a": 1}}


def test_a_bare_array_is_a_tree(where):
    checkpoints = where()
    checkpoints.save(0, np.arange(4), {})
    same(checkpoints.restore(0, np.arange(4))[0], np.arange(4))


def test_only_the_newest_are_kept(where):
    saved(where, 1, 2, 3, 10, keep=2)
    assert where().numbers() == [3, 10]
    same(where().latest(like(tree(0)))[1], tree(10))


def test_all_are_kept(where):
    saved(where, 0, 5, 40)
    assert where().numbers() == [0, 5, 40]


def test_the_same_number_is_replaced(where):
    saved(where, 1, 2)
    checkpoints = where()
    checkpoints.save(1, tree(7), {"again": True})
    assert checkpoints.numbers() == [1, 2]
    restored, meta = checkpoints.restore(1, like(tree(7)))
    same(restored, tree(7))
    assert meta == {"again": True}


def test_the_directory_may_be_deleted_to_start_again(where):
    saved(where, 1, 2, keep=2)
    checkpoints = where(keep=2)
    assert checkpoints.latest(like(tree(2)))[0] == 2
    shutil.rmtree(checkpoints.directory)
    for number in (1, 2, 3):
        checkpoints.save(number, tree(number + 5), {})
    assert checkpoints.numbers() == [2, 3]
    same(checkpoints.restore(2, like(tree(7)))[0], tree(7))


def test_a_future_that_was_given_up_is_forgotten(where):
    saved(where, 5, 9, keep=2)
    checkpoints = where(keep=2)
    checkpoints.save(6, tree(6), {})
    assert checkpoints.numbers() == [5, 6]
    assert checkpoints.latest(like(tree(6)))[0] == 6


def test_nothing_there_makes_nothing(where):
    checkpoints = where()
    assert checkpoints.numbers() == [] and checkpoints.latest(like(tree(0))) is None
    with pytest.raises(CheckpointError, match="there is no checkpoint 4 in"):
        checkpoints.restore(4, like(tree(0)))
    assert not checkpoints.directory.exists()


def test_other_arrays_are_a_misfit_and_stay(where):
    saved(where, 1, 2)
    wanted = like(tree(2))
    for change in (
        {"done": jax.ShapeDtypeStruct((4,), bool)},
        {"half": jax.ShapeDtypeStruct((5,), np.float16)},
        {"extra": np.zeros(1)},
    ):
        with pytest.raises(Misfit, match=rf"checkpoint 2 in .* holds other arrays .*\({next(iter(change))} is "):
            where().latest(wanted | change)
    del wanted["odd"]
    with pytest.raises(Misfit, match="odd is .* not None"):
        where().restore(2, wanted)
    assert where().numbers() == [1, 2]


def data_file(step):
    """The file that holds the bytes of the noise, which cannot be compressed."""
    noise = tree(int(step.name))["noise"][1000:1010].tobytes()
    return next(p for p in (step / "state").rglob("d/*") if noise in p.read_bytes())


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def flip_array(step):
    noise = tree(int(step.name))["noise"][1000:1010].tobytes()
    flip(data_file(step), data_file(step).read_bytes().index(noise))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_meta(step):
    path = step / "meta" / "metadata"
    content = json.loads(path.read_text())
    content["meta"]["at"] += 1
    path.write_text(json.dumps(content))


DAMAGES = {
    "byte flipped in an array": flip_array,
    "data cut": lambda step: cut(data_file(step)),
    "data emptied": lambda step: data_file(step).write_bytes(b""),
    "data deleted": lambda step: data_file(step).unlink(),
    "manifest cut": lambda step: cut(step / "state" / "manifest.ocdbt"),
    "manifest deleted": lambda step: (step / "state" / "manifest.ocdbt").unlink(),
    "structure emptied": lambda step: (step / "state" / "_METADATA").write_bytes(b""),
    "meta cut": lambda step: cut(step / "meta" / "metadata"),
    "meta emptied": lambda step: (step / "meta" / "metadata").write_bytes(b""),
    "meta changed": change_meta,
    "meta no object": lambda step: (step / "meta" / "metadata").write_text("[1]"),
    "meta deleted": lambda step: (step / "meta" / "metadata").unlink(),
    "meta item missing": lambda step: shutil.rmtree(step / "meta"),
    "state item missing": lambda step: shutil.rmtree(step / "state"),
    "everything missing": lambda step: [shutil.rmtree(step), step.mkdir()],
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A directory with checkpoints 4 and 5."""
    checkpoints = Checkpoints(tmp_path_factory.mktemp("two") / "checkpoints", 2)
    for number in (4, 5):
        checkpoints.save(number, tree(number), {"at": number})
    checkpoints.close()
    return checkpoints.directory


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_and_the_one_before_used(two, where, damage, tmp_path):
    directory = shutil.copytree(two, tmp_path / "checkpoints")
    DAMAGES[damage](directory / "5")
    notes = []
    checkpoints = where(keep=2, note=notes.append)
    with pytest.raises(CheckpointError, match="checkpoint 5 in .* is damaged") as error:
        checkpoints.restore(5, like(tree(5)))
    assert not isinstance(error.value, Misfit)
    number, restored, meta = checkpoints.latest(like(tree(5)))
    same(restored, tree(4))
    assert (number, meta) == (4, {"at": 4})
    (line,) = notes
    assert line.startswith(f"checkpoint 5 in {directory} is damaged (") and line.endswith("); using the one before")
    assert "\n" not in line
    # The damaged one does not block later ones.
    assert checkpoints.numbers() == [4]
    checkpoints.save(5, tree(5), {"at": 5})
    checkpoints.close()
    same(where().latest(like(tree(5)))[1], tree(5))


@pytest.mark.parametrize("name", ["commit_success.txt", "_CHECKPOINT_METADATA", "state/_METADATA"])
def test_a_missing_file_that_holds_nothing_of_ours_does_not_matter(where, name):
    directory = saved(where, 4, 5)
    (directory / "5" / name).unlink()
    same(where().latest(like(tree(5)))[1], tree(5))


def test_a_flipped_byte_anywhere_never_gives_wrong_arrays(where):
    directory = saved(where, 5)
    files = sorted(p for p in (directory / "5").rglob("*") if p.is_file() and p.stat().st_size)
    rng = np.random.default_rng(0)
    noticed = 0
    for path in files:
        for position in rng.integers(path.stat().st_size, size=3):
            flip(path, position)
            try:
                restored, meta = where().restore(5, like(tree(5)))
                same(restored, tree(5))
                assert meta == {"at": 5}
            except CheckpointError:
                noticed += 1
            flip(path, position)
    assert noticed > 5  # many bytes do not matter, such as those of orbax's own metadata


def test_all_damaged_is_none_at_all(where):
    directory = saved(where, 1, 2, 3)
    for number in (1, 2, 3):
        flip_array(directory / str(number))
    notes = []
    assert where(note=notes.append).latest(like(tree(1))) is None
    assert [line.partition(" in ")[0] for line in notes] == ["checkpoint 3", "checkpoint 2", "checkpoint 1"]
    assert notes[-1].endswith("; there is none before it")


def test_giving_up_is_silent(where, capfd, caplog):
    directory = saved(where, 1)
    data_file(directory / "1").unlink()
    (directory / "1" / "state" / "manifest.ocdbt").unlink()
    notes = []
    assert where(note=notes.append).latest(like(tree(1))) is None
    gc.collect(1)  # objects that were just released
    assert len(notes) == 1 and capfd.readouterr() == ("", "") and not caplog.records


def test_leftovers_of_a_killed_save_are_ignored_and_cleared(where):
    directory = saved(where, 1)
    part = directory / "9.orbax-checkpoint-tmp"
    shutil.copytree(directory / "1", part)
    checkpoints = where()
    assert checkpoints.numbers() == [1] and checkpoints.latest(like(tree(1)))[0] == 1
    assert part.exists()  # a reader deletes nothing: another process may be saving
    checkpoints.save(2, tree(2), {})
    assert checkpoints.numbers() == [1, 2] and not part.exists()


def waiting(before: list[threading.Thread]) -> list[threading.Thread]:
    """New threads that would keep the process alive; idle threads of a pool end with it."""
    new = [thread for thread in threading.enumerate() if thread not in before]
    return [thread for thread in new if not thread.daemon and not thread.name.startswith("asyncio_")]


def test_a_save_that_cannot_begin_leaves_no_thread_behind(where, monkeypatch):
    checkpoints, before, mine = where(), threading.enumerate(), tree(1)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", full)
        patch.setattr(os, "mkdir", full)
        with pytest.raises(CheckpointError, match="is the disk full"):
            checkpoints.save(1, mine, {})
    assert not waiting(before)
    checkpoints.save(1, mine, {})
    assert checkpoints.numbers() == [1]


@pytest.mark.parametrize("name", ["end", "1.damaged", "1.replaced", "1.orbax-checkpoint-tmp"])
def test_a_file_where_a_folder_belongs_is_no_crash(name, where):
    directory = where().directory
    directory.mkdir(parents=True)
    (directory / name).write_text("?")
    (directory / "1").write_text("?")
    assert where(note=lambda line: None).latest(like(tree(1))) is None
    checkpoints = where()
    checkpoints.save(1, tree(1), {})
    same(checkpoints.latest(like(tree(1)))[1], tree(1))
    assert Checkpoints(directory / "1.damaged", None).numbers() == []


def test_a_checkpoint_of_another_meaning_is_passed_over(where):
    saved(where, 1, 2)
    notes: list[str] = []
    latest = where(note=notes.append).latest(like(tree(1)), lambda meta: meta["at"] == 1)
    assert latest[0] == 1 and len(notes) == 1 and "is damaged (invalid metadata); using the one before" in notes[0]


def test_a_full_disk_is_one_line_and_harms_no_earlier_checkpoint(where):
    directory = saved(where, 1, 2, keep=2)
    checkpoints = where(keep=2)
    large = tree(3) | {"large": np.random.default_rng(0).normal(size=100_000)}
    before = threading.enumerate()
    with disk_of(100_000), pytest.raises(CheckpointError, match="cannot write .*disk full") as error:
        checkpoints.save(3, large, {})
    assert str(directory) in str(error.value) and "\n" not in str(error.value)
    assert checkpoints.numbers() == [1, 2]
    assert not waiting(before)
    same(where().latest(like(tree(2)))[1], tree(2))
    checkpoints.save(3, large, {})  # when there is space again
    checkpoints.close()
    assert where().numbers() == [2, 3]


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write checkpoint 0 in .*file/checkpoints"):
        Checkpoints(tmp_path / "file" / "checkpoints", None).save(0, {"x": np.ones(1)}, {})


def test_orbax_is_silent_and_our_own_log_is_not(where, caplog, capfd):
    caplog.set_level(logging.INFO, logger="absl")
    saved(where, 1, 2, 3, keep=2)
    where().latest(like(tree(3)))
    assert not [record for record in caplog.records if "/orbax/" in record.pathname]
    assert capfd.readouterr() == ("", "")
    for name in ("absl", "asyncio"):
        logging.getLogger(name).error("ours of %s", name)
        assert f"ours of {name}" in caplog.text
    logging.getLogger("asyncio").error("Task exception was never retrieved: %s", "ValueError('tensorstore_spec')")
    assert "tensorstore" not in caplog.text
