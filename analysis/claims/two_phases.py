"""The explanation of the gap by Berariu et al. 2021, as claims about gradient noise and width, written before any run.

The paper measures accuracy only; how noise and width are measured is our choice, see `configs/two_phases.py`.  Marks in
the sources are explained in `berariu2021`.
"""

from plasticity_jax.analysis.claims.berariu2021 import PAPER
from plasticity_jax.analysis.effects.contrasts import Claim, Contrast, minus, the
from plasticity_jax.analysis.effects.derived import ranked
from plasticity_jax.analysis.effects.stats import ABOVE, BELOW
from plasticity_jax.analysis.studies import END, START, WINDOW, When
from plasticity_jax.storage.results import METRIC

STUDY = "two_phases"
SOURCE = f"{PAPER}, section 3; what is measured is [inferred]"
OURS = f"ours: {PAPER}, section 3 [inferred]"
ACCURACY: tuple[str, When] = (METRIC, WINDOW)
NOISE: tuple[str, When] = ("noise_of_update", START)
ADAM_NOISE: tuple[str, When] = ("preconditioned_noise_of_update", START)
SHARPNESS: tuple[str, When] = ("adaptive_sharpness", END)
FILTERS: tuple[str, When] = ("filter_rise", END)


def _more(first: str, second: str, metric: str, at: When) -> Contrast:
    """A metric of the first branch minus that of the second."""
    return minus(the(first, metric, at), the(second, metric, at))


ACCOUNT = (
    Claim(
        "gap",
        STUDY,
        "The pretrained network ends below the fresh one.",
        f"{PAPER}, Figure 1",
        minus("fresh", "warm"),
    ),
    Claim(
        "noise-start",
        STUDY,
        "Before the first step of tuning, the gradients of a fresh network are noisier than those of a pretrained one: "
        "the trace of their covariance is larger.",
        SOURCE,
        _more("fresh", "warm", "noise_trace", 0.0),
        unit="tr(Sigma)",
    ),
    Claim(
        "noise-early",
        STUDY,
        "Over the first third of tuning, the gradients of a fresh network are noisier than those of a pretrained one.",
        SOURCE,
        _more("fresh", "warm", "noise_trace", START),
        unit="tr(Sigma)",
    ),
    Claim(
        "noise-adam",
        STUDY,
        "Over the first third of tuning, the steps of Adam are noisier for a fresh network than for a pretrained one.",
        SOURCE,
        _more("fresh", "warm", *ADAM_NOISE),
        unit="rate tr(Sigma)/B",
    ),
    Claim(
        "wider",
        STUDY,
        "The fresh network ends in the wider minimum: its adaptive sharpness is lower.",
        SOURCE,
        _more("warm", "fresh", *SHARPNESS),
        unit="nats",
    ),
    Claim(
        "wider-filters",
        STUDY,
        "The fresh network ends in the wider minimum: its loss rises less along random, filter-normalised directions.",
        SOURCE,
        _more("warm", "fresh", *FILTERS),
        unit="nats",
    ),
    Claim(
        "rate-noise",
        STUDY,
        "Ten times the rate amplifies the noise of a pretrained network: over the first third of tuning its updates "
        "are noisier.",
        SOURCE,
        _more("warm-10x", "warm", *NOISE),
        unit="rate tr(Sigma)/B",
    ),
    Claim(
        "rate-width",
        STUDY,
        "With ten times the rate a pretrained network ends in a wider minimum: its adaptive sharpness is lower.",
        SOURCE,
        _more("warm", "warm-10x", *SHARPNESS),
        unit="nats",
    ),
    Claim(
        "rate-mends",
        STUDY,
        "Ten times the rate helps a pretrained network more than a fresh one: the gap at equal rates is smaller.",
        OURS,
        minus(minus("fresh", "warm"), minus("fresh-10x", "warm-10x")),
    ),
)

OVER_BRANCHES = (
    Claim(
        "rank-noise",
        STUDY,
        "Over the branches of a seed, noisier updates in the first third of tuning go with a higher final accuracy.",
        OURS,
        ranked(NOISE, ACCURACY),
        ABOVE,
        unit="rank correlation",
    ),
    Claim(
        "rank-noise-adam",
        STUDY,
        "Over the branches of a seed, noisier steps of Adam in the first third of tuning go with a higher final "
        "accuracy.",
        OURS,
        ranked(ADAM_NOISE, ACCURACY),
        ABOVE,
        unit="rank correlation",
    ),
    Claim(
        "rank-width",
        STUDY,
        "Over the branches of a seed, a higher final adaptive sharpness (a narrower minimum) goes with a lower final "
        "accuracy.",
        OURS,
        ranked(SHARPNESS, ACCURACY),
        BELOW,
        unit="rank correlation",
    ),
    Claim(
        "rank-filters",
        STUDY,
        "Over the branches of a seed, a steeper loss along random directions goes with a lower final accuracy.",
        OURS,
        ranked(FILTERS, ACCURACY),
        BELOW,
        unit="rank correlation",
    ),
    Claim(
        "through-width",
        STUDY,
        "Noise acts through width: over the branches of a seed, its rank correlation with accuracy is higher than the "
        "partial correlation given width (a correlation is no proof of a cause).",
        OURS,
        minus(ranked(NOISE, ACCURACY), ranked(NOISE, ACCURACY, given=SHARPNESS)),
        ABOVE,
        unit="rank correlation",
    ),
)

CLAIMS = (*ACCOUNT, *OVER_BRANCHES)
