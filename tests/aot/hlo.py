"""Reads the text of compiled programs."""

import re
from collections.abc import Iterator
from typing import NamedTuple

LINE = re.compile(r"^\s+(?:ROOT )?%(?P<name>\S+) = (?P<type>\(.*?\)|\S+) (?P<op>[\w\-]+)\((?P<rest>.*)$", re.MULTILINE)
LIBRARIES = re.compile(r'custom_call_target="__(cublas|cudnn)')
COLLECTIVES = re.compile(r"^(all-|reduce-scatter|collective-|ragged-all)")
ELSEWHERE = re.compile(r"^(infeed|outfeed|send|recv)")
CALLBACK = re.compile(r'custom_call_target="[^"]*(callback|host)', re.IGNORECASE)
HOST = "S(5)"  # the memory of the host, in the layout of an array


class Instruction(NamedTuple):
    """One line: the result's name and type, the operation, and the rest after the operation's name."""

    name: str
    type: str
    op: str
    rest: str

    @property
    def source(self) -> str:
        """The place in the lab's code, as jax names it."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""


class Product(NamedTuple):
    """A matrix product or a convolution: element types of its factors and result, and its precisions."""

    factors: tuple[str, ...]
    made: str
    source: str
    precisions: tuple[str, ...]


def instructions(text: str) -> list[Instruction]:
    """Every instruction of every computation."""
    return [Instruction(**match.groupdict()) for match in LINE.finditer(text)]


def products(text: str) -> list[Product]:
    """Every matrix product and convolution, by XLA or a library."""
    lines = instructions(text)
    types = {line.name: line.type for line in lines}
    listed = []
    for line in lines:
        if line.op in ("dot", "convolution") or line.op == "custom-call" and LIBRARIES.search(line.rest):
            operands = re.findall(r"%([\w.\-]+)", line.rest.partition("), ")[0])[:2]
            asked = re.search(r'operand_precision"?[=:][\[{]([^\]}]*)', line.rest)
            precisions = tuple(re.findall(r"\w+", asked[1].lower())[:2]) if asked else ()
            factors = tuple(element(types[name]) for name in operands)
            listed.append(Product(factors, element(line.type), line.source, precisions))
    return listed


def element(type_: str) -> str:
    """The type of an array's elements, or of the first array of a tuple."""
    return type_.lstrip("(").partition("[")[0]


def collectives(text: str) -> list[Instruction]:
    """Every exchange between devices; of an asynchronous one the first half."""
    lines = instructions(text)
    return [line for line in lines if COLLECTIVES.match(line.op) and not line.op.endswith("-done")]


def narrow_sums(text: str) -> list[Instruction]:
    """Sums of many numbers in a type narrower than float32."""
    adding, inside = set(), ""
    for line in text.splitlines():
        if opens := re.match(r"%?(\S+) \(.*\{$", line):
            inside = opens[1]
        elif re.match(r"\s+ROOT \S+ = (bf16|f16)\[\]\S* add\(", line):
            adding.add(inside)
    applied = ((line, re.search(r"to_apply=%([\w.\-]+)", line.rest)) for line in instructions(text))
    return [line for line, by in applied if by and by[1] in adding and line.op.startswith("reduce")]


def host_transfers(text: str) -> Iterator[Instruction]:
    """Instructions that wait for the host, call it, or use data in its memory."""
    for line in instructions(text):
        if ELSEWHERE.match(line.op) or HOST in line.type or (line.op == "custom-call" and CALLBACK.search(line.rest)):
            yield line
