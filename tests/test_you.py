"""The claims of You et al. 2019, and the numbers of a transition that they are made of."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from analysis import claims, contrasts, jumps, studies, you, you_implications, you_patterns
from analysis.jumps import At

RESULTS = Path(__file__).parents[1] / "analysis" / "results"
CLAIMS = (*you.CLAIMS, *you_patterns.CLAIMS, *you_implications.CLAIMS)
STUDIES = sorted({claim.study for claim in CLAIMS})
# A stage of 20 epochs from 2.0 down by 0.01 an epoch, a fall by 0.5 at epoch 20, then the same slope.
CURVE = {float(e): 2.0 - 0.01 * e - 0.5 * (e > 20) for e in range(41)}
BOUNDS = (0.0, 20.0, 40.0)


def test_ids_are_unique_and_sources_are_named():
    assert not [key for key, count in Counter((claim.study, claim.id) for claim in CLAIMS).items() if count > 1]
    assert all("You et al. 2019" in claim.source for claim in CLAIMS)
    assert all(re.fullmatch(r"[A-Z].*\.", claim.statement) for claim in CLAIMS)
    assert all("10 %" not in claim.statement for claim in CLAIMS)  # the paper's one number is not ours


def test_a_jump_is_the_fall_and_the_slope():
    # k = 3: means of epochs 18..20 and 21..23 lie three epochs of slope apart
    assert jumps.measure(At(jumps.JUMP, 1), CURVE, BOUNDS, rises=False) == pytest.approx(0.5 + 0.03)
    assert jumps.measure(At(jumps.JUMP, 1), CURVE, BOUNDS, rises=True) == pytest.approx(-0.53)
    assert jumps.measure(At(jumps.JUMP, 1, shift=-1 / 3), CURVE, BOUNDS, rises=False) == pytest.approx(0.03)
    assert jumps.measure(At(jumps.JUMP, 1, shift=1 / 3), CURVE, BOUNDS, rises=False) == pytest.approx(0.03)


def test_the_ratio_is_a_share_of_the_progress():
    # from epoch 3 to 20 the loss fell by 0.17
    assert jumps.measure(At(jumps.RATIO, 1), CURVE, BOUNDS, rises=False) == pytest.approx(0.53 / 0.17)
    assert jumps.measure(At(jumps.END, 1), CURVE, BOUNDS, rises=False) == pytest.approx(1.8)


def test_sharpness_counts_scatter_around_a_line():
    noisy = {e: y + (0.01 if int(e) % 2 else -0.01) for e, y in CURVE.items()}
    smooth, rough = (jumps.measure(At(jumps.SHARPNESS, 1), c, BOUNDS, rises=False) for c in (CURVE, noisy))
    assert 30 < rough < 70 < smooth


def test_what_the_curve_does_not_reach_is_nan():
    assert math.isnan(jumps.measure(At(jumps.JUMP, 2), CURVE, BOUNDS, rises=False))
    short = {e: y for e, y in CURVE.items() if e < 22}
    assert math.isnan(jumps.measure(At(jumps.JUMP, 1), short, BOUNDS, rises=False))
    with pytest.raises(ValueError, match="kind='leap'"):
        jumps.measure(At("leap", 1), CURVE, BOUNDS, rises=False)


OTHERS = ("slope", "sasa", "abel")  # schedules that were not run
NOT_RUN = {"gone-full-group", "cosine"} | {
    f"{what}-{name}" for what in ("saves", "same") for name in OTHERS
}  # analysis/results/README.md says why


@pytest.mark.parametrize("name", [name for name in STUDIES if (RESULTS / name / "result.json").exists()])
def test_every_claim_is_tested_on_its_study(name):
    found = claims.judge([studies.read(RESULTS / name)])
    assert {each.claim.id for each in found} == {claim.id for claim in CLAIMS if claim.study == name}
    untested = {each.claim.id for each in found if each.verdict == contrasts.UNTESTED}
    assert untested == NOT_RUN & {each.claim.id for each in found}
