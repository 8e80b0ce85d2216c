"""What the host and the device do in one step of a GPU program, from XLA's own list of the executable's parts.

XLA writes the list (`*.thunk_sequence_after_thunk_passes.txt`) where `XLA_FLAGS=--xla_dump_to=DIR
--xla_dump_hlo_as_text` asks for it.  Its parts are nested by indentation: kernels, library calls and copies; loops,
branches and CUDA graphs (`kCommandBuffer`), which hold others.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

LINE = re.compile(r"^( *)(\d+): (k\w+)\s*(?:\[.*?\])?\s*(.*)$")
KERNELS = ("kKernel", "kCustomKernel")
PRODUCTS = ("kGemm", "kCublasLtMatmul", "kConvolution", "kCuDnn")
HOLDERS = ("kWhile", "kConditional", "kSequential", "kCommandBuffer", "kDynamicSliceFusion")
FILLS = ("kMemzero", "kMemset", "kMemset32BitValue")


@dataclasses.dataclass
class Part:
    """A thunk: its kind, its description (a kernel's name first), and the parts inside, including those of loops."""

    kind: str
    text: str
    parts: list["Part"] = dataclasses.field(default_factory=list)

    def walk(self) -> Iterator["Part"]:
        for part in self.parts:
            yield part
            yield from part.walk()

    @property
    def is_product(self) -> bool:
        """A convolution or a matrix product, whether of a library or a fusion."""
        return self.kind in PRODUCTS or (self.kind in KERNELS and "gemm" in self.text)


def read(text: str) -> Part:
    """The whole program as one part."""
    top = Part("program", "")
    opened = [(-1, top)]
    for line in text.splitlines():
        if match := LINE.match(line):
            part = Part(match[3], match[4])
            while opened[-1][0] >= len(match[1]):
                opened.pop()
            opened[-1][1].parts.append(part)
            opened.append((len(match[1]), part))
    return top


def step_loop(top: Part) -> tuple[Part, bool]:
    """The loop over steps, which is the innermost with several products, and whether it is part of a CUDA graph.

    Raises:
      ValueError: there is none.
    """
    loops: list[tuple[Part, bool]] = []

    def look(part: Part, inside: bool) -> None:
        for child in part.parts:
            if child.kind == "kWhile" and sum(other.is_product for other in child.walk()) > 1:
                loops.append((child, inside))
            look(child, inside or child.kind == "kCommandBuffer")

    look(top, False)
    if not loops:
        raise ValueError("no loop over steps in XLA's list")
    return loops[-1]


def issues(parts: list[Part]) -> int:
    """What the host starts one by one, each loop taken once; a CUDA graph counts as one."""
    alone = (issues(part.parts) if part.kind in HOLDERS and part.kind != "kCommandBuffer" else 1 for part in parts)
    return sum(alone)


def count(text: str) -> dict[str, Any]:
    """Of one turn of the loop over steps.

    Returns:
      kernels: all that the device starts, library calls and copies too.  Of them `products` (convolutions and matrix
        products), `convolutions`, `transposes` and `copies`.
      host_issues: what the host starts one by one; 0 where the loop itself is in a CUDA graph.
      host_issues_per_call: of the whole program, each of its loops taken once.
    """
    top = read(text)
    loop, inside = step_loop(top)
    kinds: collections.Counter[str] = collections.Counter()
    for part in loop.walk():
        if part.kind not in HOLDERS:
            kinds["kernels"] += 1
            kinds["products"] += part.is_product
            kinds["convolutions"] += part.kind == "kConvolution"
            kinds["transposes"] += part.kind in KERNELS and "transpose" in part.text.split()[0]
            kinds["copies"] += part.kind == "kCopy"
    names = ("kernels", "products", "convolutions", "transposes", "copies")
    return {name: kinds[name] for name in names} | {
        "host_issues": 0 if inside else issues(loop.parts),
        "host_issues_per_call": issues(top.parts),
    }
