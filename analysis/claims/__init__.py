"""All claims that are tested, as data, one file for each paper.

To add a paper, add a file such as `berariu2021` with its claims, and a line here.
"""

from plasticity_jax.analysis.claims import (
    appendix_b,
    ash2020,
    berariu2021,
    controls,
    remedies,
    two_phases,
    you2019,
    you2019_implications,
    you2019_patterns,
)
from plasticity_jax.analysis.effects.contrasts import Claim

CLAIMS: tuple[Claim, ...] = (
    *berariu2021.CLAIMS,
    *controls.CLAIMS,
    *two_phases.CLAIMS,
    *ash2020.CLAIMS,
    *appendix_b.CLAIMS,
    *you2019.CLAIMS,
    *you2019_patterns.CLAIMS,
    *you2019_implications.CLAIMS,
    *remedies.CLAIMS,
)
