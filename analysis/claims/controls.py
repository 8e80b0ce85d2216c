"""Our own controls for Berariu et al. 2021: do the claims hold for the stated reason, or is the gap an artefact?

Marks in the sources are explained in `berariu2021`.
"""

from plasticity_jax.analysis.claims.berariu2021 import PAPER, SLOWEST, gap_of_size
from plasticity_jax.analysis.effects.contrasts import Claim, Contrast, average, family, minus, spread
from plasticity_jax.analysis.effects.stats import WITHIN

BLENDING = (
    Claim(
        "gap-replacement",
        "blending",
        "The slowly fading bias costs accuracy also against a control that, like blending, draws every example with "
        "replacement.",
        f"ours: {PAPER}, Figure 3 [inferred]",
        minus("replacement", SLOWEST),
    ),
    Claim(
        "replacement",
        "blending",
        "Drawing with replacement alone changes the test accuracy by less than a point.",
        f"ours: {PAPER}, Figure 3 [inferred]",
        minus("fresh", "replacement"),
        WITHIN,
    ),
)


def _gap_of_width(width: str) -> Contrast:
    """The gap at a width, averaged over the depths."""
    return average(family(f"fresh[depth={{}},width={width}]", take=lambda depth: gap_of_size(depth, width)))


ARCHITECTURE = (
    Claim(
        "gap-by-width",
        "architecture",
        "Width does not matter to the size of the gap: averaged over depth, it changes by less than a point from the "
        "narrowest to the widest network (more than the paper claims, which is only that a gap stays).",
        f"ours: {PAPER}, Figure 5 [inferred]",
        spread(family("fresh[depth=*,width={}]", take=_gap_of_width)),
        WITHIN,
    ),
)


def _gap_of_rate(rate: str) -> Contrast:
    return minus(f"fresh[rate={rate}]", f"pretrain+tune[rate={rate}]")


TUNING_RATE = (
    Claim(
        "shrinks-gap",
        "tuning_rate",
        "A 10 times larger learning rate of tuning does more for the pretrained than for the fresh network: the gap at "
        "equal rates is smaller at 10x than at 1x.",
        f"ours: {PAPER}, Figure 7, with a fresh network at the same rate [inferred]",
        minus(_gap_of_rate("1x"), _gap_of_rate("10x")),
    ),
    Claim(
        "fresh-same",
        "tuning_rate",
        "The larger rate is not simply better or worse for all: it changes a fresh network by less than a point.",
        f"ours: {PAPER}, Figure 7 [inferred]",
        minus("fresh[rate=10x]", "fresh[rate=1x]"),
        WITHIN,
    ),
)


def _stem(stem: str, name: str, source: str) -> tuple[Claim, ...]:
    """The controls of Figure 1 with one stem."""
    at = f"[stem={stem}]"
    return (
        Claim(
            f"gap-{stem}",
            "controls",
            f"With {name}, there is a gap.",
            source,
            minus(f"fresh{at}", f"pretrain+tune{at}"),
        ),
        Claim(
            f"matched-{stem}",
            "controls",
            f"With {name}, the number of updates does not explain the gap: a fresh network trained for as many updates "
            "as pretraining and tuning together still ends above the pretrained one.",
            f"ours: {PAPER}, Figure 1 [inferred]",
            minus(f"fresh-matched{at}", f"pretrain+tune{at}"),
        ),
        Claim(
            f"statistics-{stem}",
            "controls",
            f"With {name}, BatchNorm's statistics do not explain the gap: a pretrained network with reset statistics "
            "still ends below a fresh one.",
            f"ours: {PAPER}, Figure 1 [inferred]",
            minus(f"fresh{at}", f"fresh-statistics{at}"),
        ),
    )


CONTROLS = (
    *_stem("imagenet", "the ImageNet stem", f"{PAPER}, Figure 1; that it has this stem is [inferred]"),
    *_stem("cifar", "the CIFAR stem", f"ours: {PAPER}, Figure 1, with another stem [inferred]"),
)

CLAIMS = (*BLENDING, *ARCHITECTURE, *TUNING_RATE, *CONTROLS)
