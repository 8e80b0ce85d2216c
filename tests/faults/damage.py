"""Damage to a file, as by bad disks, power cuts and careless users."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path


def delete(path: Path, draw: random.Random) -> str:
    path.unlink()
    return "deleted"


def truncate(path: Path, draw: random.Random) -> str:
    data = path.read_bytes()
    size = draw.randrange(len(data)) if data else 0
    path.write_bytes(data[:size])
    return f"cut to {size} of {len(data)} bytes"


def flip(path: Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    if not data:
        return "is empty, so left"
    place, bit = draw.randrange(len(data)), draw.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place} flipped"


def blank(path: Path, draw: random.Random) -> str:
    """As after a power cut: the length is kept, the content is not."""
    data = bytearray(path.read_bytes())
    start = draw.randrange(len(data)) if data else 0
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    return f"zeros from byte {start} of {len(data)}"


def tear(path: Path, draw: random.Random) -> str:
    """Leave the last line half written."""
    lines = path.read_bytes().splitlines()
    row = lines[-1] if lines else b'{"run": "fresh/seed0", "seed": 0}'
    with open(path, "ab") as file:
        file.write(row[: draw.randrange(1, len(row))])
    return "a torn last line"


KINDS: dict[str, Callable[[Path, random.Random], str]] = {
    "delete": delete,
    "truncate": truncate,
    "flip": flip,
    "blank": blank,
}


def damage(path: Path, draw: random.Random, how: str = "") -> str:
    """Harm a file, in a way that is drawn unless it is told; a folder is deleted.  Returns what was done."""
    if path.is_dir():
        shutil.rmtree(path)
        return "deleted"
    how = how or draw.choice(list(KINDS))
    return (tear if how == "tear" else KINDS[how])(path, draw)


def remove(path: Path) -> None:
    """Delete a file or a folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
