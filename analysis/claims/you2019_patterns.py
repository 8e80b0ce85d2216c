"""The claims of You et al. 2019 about their mechanism: which patterns are learnt at which noise level.

Both studies are substitutes, see `configs/patterns.py`.  Marks in the sources are explained in `berariu2021`; `you2019`
says what was known when the claims were written.
"""

from collections.abc import Callable

from plasticity_jax.analysis.claims.you2019 import PAPER
from plasticity_jax.analysis.effects import transitions
from plasticity_jax.analysis.effects.contrasts import Claim, Contrast, family, largest, minus, the
from plasticity_jax.analysis.effects.stats import WITHIN
from plasticity_jax.analysis.effects.transitions import At
from plasticity_jax.analysis.studies import END


def _patches(arm: str, metric: str, at: At | str, amplitude: str) -> Contrast:
    return the(f"{arm}[own={amplitude}]", metric, at)


ALONE = "patch_only_accuracy"


def _claims_of_patches(name: str, what: str, amplitude: str) -> tuple[Claim, ...]:
    """The claims about patches of one amplitude; `{}` means the largest one."""

    def at(contrast: Callable[[str], Contrast]) -> Contrast:
        return largest(family("large[own={}]", take=contrast)) if amplitude == "{}" else contrast(amplitude)

    def ignored(amplitude: str) -> Contrast:
        small, large = (_patches(arm, ALONE, At(transitions.BEFORE, 1), amplitude) for arm in ("small", "large"))
        return minus(small, large)

    source = f"{PAPER}, by the substitute of Li, Wei & Ma 2019 [inferred]"
    return (
        Claim(
            f"ignored-{name}",
            "patterns_patches",
            f"While the rate is large, {what} are ignored: with nothing but a patch to see, the network with a small "
            "rate is more accurate before the decay.",
            source,
            at(ignored),
        ),
        Claim(
            f"annealed-{name}",
            "patterns_patches",
            f"Once the rate has fallen {what} are learnt: the accuracy on them alone jumps at the decay.",
            source,
            at(lambda amplitude: _patches("large", ALONE, At(transitions.JUMP, 1), amplitude)),
        ),
        Claim(
            f"clean-{name}",
            "patterns_patches",
            f"Where {what} are put in, the network that began with the large rate ends with the higher accuracy on "
            "clean images.",
            source,
            at(lambda amplitude: minus(f"large[own={amplitude}]", f"small[own={amplitude}]")),
        ),
    )


PATCHES = (
    *_claims_of_patches("exact", "patches of the published amplitude", "0.1"),
    *_claims_of_patches("strong", "patches of the largest amplitude", "{}"),
)


def _block(branch: str, batch: int, bits: int, at: At | str = END) -> Contrast:
    return the(f"{branch}[batch_size={batch}]", f"bits{bits}_accuracy", at)


GRADED_SOURCE = f"{PAPER}, by a substitute for PS10 [inferred]"

GRADED = (
    *(
        Claim(
            f"harder-{bits}",
            "patterns_graded",
            f"A pattern of {bits} bits is learnt better than one of {bits + 2}.",
            GRADED_SOURCE,
            minus(_block("stepdecay", 32, bits), _block("stepdecay", 32, bits + 2)),
        )
        for bits in (0, 2, 4)
    ),
    Claim(
        "hidden",
        "patterns_graded",
        "The most complex pattern is learnt at little noise only: at a tenth of the rate better than at the full one.",
        GRADED_SOURCE,
        minus(_block("rate-2", 32, 6), _block("rate-1", 32, 6)),
    ),
    Claim(
        "noise-not-rate",
        "patterns_graded",
        "What counts is the noise and not the rate: at the full rate and ten times larger batches, the most complex "
        "pattern is learnt as well as at a tenth of the rate, within a point.",
        GRADED_SOURCE,
        minus(_block("rate-1", 320, 6), _block("rate-2", 32, 6)),
        WITHIN,
    ),
    Claim(
        "revealed",
        "patterns_graded",
        "At the first decay the pattern of 4 bits jumps, and more than without a decay.",
        GRADED_SOURCE,
        minus(_block("stepdecay", 32, 4, At(transitions.JUMP, 1)), _block("rate-1", 32, 4, At(transitions.JUMP, 1))),
    ),
    Claim(
        "easy-first",
        "patterns_graded",
        "The simplest pattern is learnt before the first decay, which changes it by less than a point.",
        GRADED_SOURCE,
        _block("stepdecay", 32, 0, At(transitions.JUMP, 1)),
        WITHIN,
    ),
    Claim(
        "complex-later",
        "patterns_graded",
        "Later stages learn the most complex pattern: step decay ends above the full rate held constant.",
        GRADED_SOURCE,
        minus(_block("stepdecay", 32, 6), _block("rate-1", 32, 6)),
    ),
)

CLAIMS = (*PATCHES, *GRADED)
