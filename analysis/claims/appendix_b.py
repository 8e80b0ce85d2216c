"""The claims of the works that Berariu et al. 2021 lean on in their appendix B, written before any run.

They are known to us from the papers' abstracts and from memory, so what is compared is [inferred] throughout; the
marks are those of `berariu2021`.
"""

from plasticity_jax.analysis.contrasts import Claim, Contrast, family, largest, minus, slope, smallest, the
from plasticity_jax.analysis.stats import BELOW, WITHIN
from plasticity_jax.analysis.studies import END, START, When

ACHILLE = "Achille et al. 2019"


def _longest(kind: str) -> Contrast:
    return largest(family(f"{kind}-{{}}"))


def _shortest(kind: str) -> Contrast:
    return smallest(family(f"{kind}-{{}}"))


def _fisher(at: When) -> Contrast:
    return the("clear", "fisher_trace", at, "before")


CRITICAL_PERIOD = (
    Claim(
        "deficit-lasting",
        "critical_period",
        "A deficit that lasts leaves its mark: after the longest one a network ends below one that was trained for as "
        "long without any.",
        f"{ACHILLE} [inferred]",
        minus(_longest("clear"), _longest("blur")),
    ),
    Claim(
        "deficit-longer",
        "critical_period",
        "The longer the deficit lasts, the lower the final accuracy.",
        f"{ACHILLE} [inferred]",
        slope(family("blur-{}"), per=10),
        BELOW,
        unit="points per 10 epochs",
    ),
    Claim(
        "deficit-short",
        "critical_period",
        "The shortest deficit is outgrown: it costs less than a point.",
        f"{ACHILLE} [inferred]",
        minus(_shortest("clear"), _shortest("blur")),
        WITHIN,
    ),
    Claim(
        "length-alone",
        "critical_period",
        "It is the deficit and not the length: as many epochs on clear images before change the final accuracy by less "
        "than a point.",
        f"ours: {ACHILLE} [inferred]",
        minus("fresh", _longest("clear")),
        WITHIN,
    ),
    Claim(
        "fisher-rises",
        "critical_period",
        "The trace of the Fisher matrix rises while a network begins to learn: on clear images its mean over the first "
        "third is above that of first weights.",
        f"{ACHILLE} [inferred]",
        minus(_fisher(START), _fisher(0.0)),
        unit="of the trace",
    ),
    Claim(
        "fisher-falls",
        "critical_period",
        "The trace of the Fisher matrix falls once the network has learnt: on clear images it ends below its mean over "
        "the first third.",
        f"{ACHILLE} [inferred]",
        minus(_fisher(START), _fisher(END)),
        unit="of the trace",
    ),
)

CLAIMS = CRITICAL_PERIOD
