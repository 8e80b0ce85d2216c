"""Names of jobs: readable, safe as the name of a directory, and no two alike in a sweep.

`width=8,seeds=0-4`: the pack, the points if they are not all of it, the seeds; the study first if there are several.
"""

import zlib
from collections.abc import Collection, Sequence

from plasticity_jax.config import names, spec


def name(study: str, pack: spec.Pack, points: Sequence[int], seeds: Sequence[int], taken: Collection[str]) -> str:
    """The name of a job, which is none of `taken`; `study` is empty if it need not be told."""
    chosen = [] if len(points) == len(pack.plans) else _values([pack.plans[i][0] for i in points], pack)
    first = [] if pack.name == "main" else [pack.name]
    whole = names.safe(",".join([*([study] if study else []), *first, *chosen, f"seeds={_spans(seeds)}"]), commas=True)
    for number in range(1, len(taken) + 2):
        text = _short(whole, "" if number == 1 else f".{number}")
        if text not in taken:
            return text
    raise AssertionError("more names are taken than there are")


def _values(points: Sequence[spec.HParams], pack: spec.Pack) -> list[str]:
    """`key=value+value` for each hyper-parameter in which the points of the pack differ."""
    first = dict(pack.plans[0][0])
    varying = {key for hparams, _ in pack.plans for key, value in hparams if value != first[key]}
    keys = [key for key, _ in points[0] if key in varying]
    return [f"{key}={'+'.join(dict.fromkeys(str(dict(point)[key]) for point in points))}" for key in keys]


def _spans(seeds: Sequence[int]) -> str:
    """`0-4+7` for 0, 1, 2, 3, 4 and 7."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return "+".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _short(text: str, end: str) -> str:
    """`text` with `end`; the middle of one that is too long gives way to a checksum."""
    if len(text) + len(end) <= names.LONGEST:
        return text + end
    mark = f"..{zlib.crc32(text.encode()):08x}"
    return text[: names.LONGEST - len(mark) - len(end)] + mark + end
