"""The account that Berariu et al. 2021 give of the gap, as claims about noise and width, written before any run.

The paper measures accuracy alone; what noise and width are is our choice, see `configs/two_phases.py`.  The marks are
those of `berariu2021`.
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
    """How much more a branch has of something than another."""
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
        "Before the first step of tuning a fresh network has noisier gradients than a pretrained one: a larger trace "
        "of their covariance.",
        SOURCE,
        _more("fresh", "warm", "noise_trace", 0.0),
        unit="tr(Sigma)",
    ),
    Claim(
        "noise-early",
        STUDY,
        "So it has over the first third of tuning.",
        SOURCE,
        _more("fresh", "warm", "noise_trace", START),
        unit="tr(Sigma)",
    ),
    Claim(
        "noise-adam",
        STUDY,
        "Over the first third of tuning the steps of Adam have more noise in a fresh network than in a pretrained one.",
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
        "The fresh network ends in the wider minimum: its loss rises less along random directions that are normalised "
        "filter by filter.",
        SOURCE,
        _more("warm", "fresh", *FILTERS),
        unit="nats",
    ),
    Claim(
        "rate-noise",
        STUDY,
        "Ten times the rate amplifies the noise that a pretrained network has left: over the first third of tuning its "
        "updates are noisier.",
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
        "Ten times the rate does more for a pretrained than for a fresh network: the gap at equal rates is smaller.",
        OURS,
        minus(minus("fresh", "warm"), minus("fresh-10x", "warm-10x")),
    ),
)

OVER_BRANCHES = (
    Claim(
        "rank-noise",
        STUDY,
        "Over the branches of a seed, those whose updates are noisier over the first third of tuning end with "
        "the higher accuracy.",
        OURS,
        ranked(NOISE, ACCURACY),
        ABOVE,
        unit="rank correlation",
    ),
    Claim(
        "rank-noise-adam",
        STUDY,
        "Over the branches of a seed, those whose steps of Adam are noisier over the first third of tuning end with "
        "the higher accuracy.",
        OURS,
        ranked(ADAM_NOISE, ACCURACY),
        ABOVE,
        unit="rank correlation",
    ),
    Claim(
        "rank-width",
        STUDY,
        "Over the branches of a seed, those that end in narrower minima, of a higher adaptive sharpness, end with the "
        "lower accuracy.",
        OURS,
        ranked(SHARPNESS, ACCURACY),
        BELOW,
        unit="rank correlation",
    ),
    Claim(
        "rank-filters",
        STUDY,
        "Over the branches of a seed, those whose loss rises more along random directions end with the lower accuracy.",
        OURS,
        ranked(FILTERS, ACCURACY),
        BELOW,
        unit="rank correlation",
    ),
    Claim(
        "through-width",
        STUDY,
        "Noise acts through width: over the branches of a seed, its rank correlation with accuracy is higher than it "
        "is at equal width (what goes together, and no proof of what makes what).",
        OURS,
        minus(ranked(NOISE, ACCURACY), ranked(NOISE, ACCURACY, given=SHARPNESS)),
        ABOVE,
        unit="rank correlation",
    ),
)

CLAIMS = (*ACCOUNT, *OVER_BRANCHES)
