"""Every claim that is tested, paper by paper, as data.

The next paper is a file like `analysis.berariu` with its claims, and a line here; nothing else changes.
"""

from analysis import ash_adams, berariu, controls, you, you_implications, you_patterns
from analysis.contrasts import Claim

CLAIMS: tuple[Claim, ...] = (
    *berariu.CLAIMS,
    *controls.CLAIMS,
    *ash_adams.CLAIMS,
    *you.CLAIMS,
    *you_patterns.CLAIMS,
    *you_implications.CLAIMS,
)
