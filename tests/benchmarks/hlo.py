"""One step of a compiled program from the text of its instructions: bytes that a GPU moves, cycles that a TPU takes.

Bytes are an estimate from above: each instruction reads its operands and writes its result once, except that of an
operand which it only slices, no more than the slices count.  Cycles are the estimates that XLA's compiler for TPUs
writes beside its instructions.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s64": 8, "u64": 8, "f64": 8}  # else 4
ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+)\[([\d,]*)\]")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|[\w\[\],{}:()*]+?) ([\w\-]+)\((.*)$")
HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*->.*\{\s*$")
FREE = {
    *("parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all", "opt-barrier", "partition-id"),
    *("replica-id", "while", "conditional", "call"),
}
SLICES = {"slice", "dynamic-slice", "gather"}
PRODUCT = re.compile(r"conv|dot|gemm|cublas|matmul")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: name, bytes of the result, operation, names of the operands, and the remaining text."""

    name: str
    bytes: int
    operation: str
    operands: tuple[str, ...]
    rest: str

    def called(self, how: str = "calls") -> str | None:
        found = re.search(rf"\b{how}=%?([\w.\-]+)", self.rest)
        return found[1] if found else None

    @property
    def cycles(self) -> int:
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return int(found[1]) if found else 0


Computations = dict[str, dict[str, Instruction]]


def size(shape: str) -> int:
    """Bytes of all arrays in a type."""
    return sum(
        SIZES.get(kind, 4) * math.prod(int(side) for side in sides.split(",") if side)
        for kind, sides in ARRAY.findall(shape)
    )


def parse(text: str) -> Computations:
    """The instructions of each computation by name."""
    computations: Computations = {}
    inside: dict[str, Instruction] | None = None
    for line in text.splitlines():
        if header := HEADER.match(line):
            inside = computations[header[1]] = {}
        elif line.startswith("}"):
            inside = None
        elif inside is not None and (match := INSTRUCTION.match(line)):
            operands, rest = _apart(match[4])
            names = tuple(re.findall(r"%([\w.\-]+)", operands))
            if match[3] == "parameter":
                names = (operands,)
            inside[match[1]] = Instruction(match[1], size(match[2]), match[3], names, rest)
    return computations


def _apart(text: str) -> tuple[str, str]:
    """(what is between the parentheses, what follows)."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter in "({") - (letter in ")}")
        if not depth:
            return text[:place], text[place + 1 :]
    return text, ""


def step(computations: Computations) -> Iterator[Instruction]:
    """The instructions of one turn of the loop over steps: of the loops without a known trip count, the one with most
    products.

    Instructions of loops inside it are repeated for each of their turns.
    """
    loops = [each for inside in computations.values() for each in inside.values() if each.operation == "while"]
    bodies = [body for each in loops if not _turns(each) and (body := each.called("body"))]
    products = {body: sum(bool(PRODUCT.search(each.name)) for each in computations[body].values()) for body in bodies}
    yield from _walk(max(products, key=lambda body: products[body]), computations)


def _walk(name: str, computations: Computations) -> Iterator[Instruction]:
    for instruction in computations[name].values():
        if instruction.operation not in FREE and not instruction.operation.endswith("-done"):
            yield instruction
        inside = instruction.called("body") or (
            instruction.called("to_apply") if instruction.operation == "call" else None
        )
        for _ in range(_turns(instruction) or 1 if inside else 0):
            yield from _walk(str(inside), computations)


def _turns(loop: Instruction) -> int | None:
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.rest)
    return int(found[1]) if found else None


def moved(text: str) -> int:
    """Bytes that one step reads and writes."""
    computations = parse(text)
    sizes = {name: each.bytes for inside in computations.values() for name, each in inside.items()}
    total = 0
    for instruction in step(computations):
        inner = computations.get(instruction.called() or "", {}) if instruction.operation == "fusion" else {}
        total += sum(_read(place, sizes.get(name, 0), inner) for place, name in enumerate(instruction.operands))
        total += instruction.bytes
        for update in inner.values():  # in place: only the slice is written
            if update.operation == "dynamic-update-slice":
                total -= update.bytes - sizes.get(update.operands[1], 0)
    return total


def _read(place: int, whole: int, inner: dict[str, Instruction]) -> int:
    """Bytes that a fusion reads of its operand number `place`: only the slices, if it uses nothing else."""
    (name, *_) = [
        each.name for each in inner.values() if each.operation == "parameter" and each.operands[0] == str(place)
    ] or [""]
    users = [each for each in inner.values() if name in each.operands]
    if not users or not all(each.operation in SLICES or _is_updated(name, each) for each in users):
        return whole
    return min(whole, sum(each.bytes for each in users if each.operation in SLICES))


def _is_updated(name: str, user: Instruction) -> bool:
    return user.operation == "dynamic-update-slice" and user.operands[0] == name


def copied(text: str) -> int:
    """Bytes that one step only copies, for example into another layout or to the place of a loop's result."""
    return sum(each.bytes for each in step(parse(text)) if each.operation in ("copy", "copy-start", "transpose"))


def cycles(text: str) -> dict[str, int]:
    """Estimated cycles of one step by operation; fusions by name without the number."""
    totals: collections.Counter[str] = collections.Counter()
    for instruction in step(parse(text)):
        kind = re.sub(r"[.\d]+$", "", instruction.name) if instruction.operation == "fusion" else instruction.operation
        totals[kind] += instruction.cycles
    return dict(totals.most_common())
