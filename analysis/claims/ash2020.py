"""The claims of Ash & Adams 2020, "On warm-starting neural network training", Table 1, Figure 2 and Figure 7.

Marks in the sources are explained in `berariu2021`.
"""

from plasticity_jax.analysis.effects.contrasts import (
    Claim,
    Contrast,
    family,
    largest,
    measured,
    minus,
    slope,
    the,
    times,
)
from plasticity_jax.analysis.effects.stats import NOT_BELOW

PAPER = "Ash & Adams 2020"
OPTIMISERS = {"adam": "Adam", "sgd": "SGD"}


def _point(model: str, optimiser: str) -> str:
    return f"[model={model},optimiser={optimiser}]"


def _gap(model: str, optimiser: str) -> Contrast:
    at = _point(model, optimiser)
    return minus(f"fresh{at}", f"pretrain+tune{at}")


TABLE = (
    *(
        Claim(
            f"gap-{model}-{optimiser}",
            "warm_start_table",
            f"{name} trained with {rule} on a half until it is fitted and then on everything ends below a fresh one.",
            f"{PAPER}, Table 1",
            _gap(model, optimiser),
        )
        for model, name in {"resnet": "A residual network", "mlp": "A perceptron with hidden layers"}.items()
        for optimiser, rule in OPTIMISERS.items()
    ),
    *(
        Claim(
            f"convex-{optimiser}",
            "warm_start_table",
            f"Logistic regression, which is convex, loses next to nothing with {rule}: less than a point.",
            f"{PAPER}, Table 1; the margin is [inferred]",
            times(-1, _gap("logistic", optimiser)),
            NOT_BELOW,
        )
        for optimiser, rule in OPTIMISERS.items()
    ),
    *(
        Claim(
            f"shrink-perturb-{optimiser}",
            "warm_start_table",
            f"Shrunk and perturbed before it goes on ({rule}), a residual network ends no more than a point below a "
            "fresh one.",
            f"{PAPER}, Figure 7 [second-hand]",
            minus(f"shrink-perturb{_point('resnet', optimiser)}", f"fresh{_point('resnet', optimiser)}"),
            NOT_BELOW,
        )
        for optimiser, rule in OPTIMISERS.items()
    ),
)


def _after(chunk: str, first: str, second: str) -> Contrast:
    """first - second, both trained on all chunks up to this one."""
    stage = f"chunk{chunk}"
    return minus(the(first.format(chunk), stage=stage), the(second.format(chunk), stage=stage))


def _in_the_end(first: str, second: str) -> Contrast:
    """first - second after the last chunk; `fresh-{}` is the fresh network of that chunk."""
    return largest(family("fresh-{}", take=lambda chunk: _after(chunk, first, second)))


FRESH, WARM, SHRUNK = "fresh-{}", "warm", "shrink-perturb"

ONLINE = (
    Claim(
        "gap",
        "warm_start_online",
        "Where data keep arriving and training always goes on from before, the network ends below a fresh one trained "
        "on all of them.",
        f"{PAPER}, Figure 2 [second-hand]",
        _in_the_end(FRESH, WARM),
    ),
    Claim(
        "gap-grows",
        "warm_start_online",
        "The gap grows with the amount of data: its slope over the chunks, from the second on.",
        f"{PAPER}, Figure 2 [second-hand]",
        slope(family("fresh-{}", take=lambda chunk: _after(chunk, FRESH, WARM), least=2)),
        unit="points per chunk",
    ),
    Claim(
        "warm-faster",
        "warm_start_online",
        "After the last chunk the warm start fits all data in fewer updates than a fresh network; counted are those "
        "until the fit or the last epoch.",
        f"{PAPER}, Figure 2 [second-hand]",
        measured(_in_the_end(FRESH, WARM), "steps"),
        unit="updates",
    ),
    Claim(
        "shrink-perturb",
        "warm_start_online",
        "Shrunk and perturbed at every arrival, the network ends no more than a point below a fresh one after the last "
        "chunk.",
        f"{PAPER}, Figure 7 [second-hand]",
        times(-1, _in_the_end(FRESH, SHRUNK)),
        NOT_BELOW,
    ),
    Claim(
        "shrink-perturb-helps",
        "warm_start_online",
        "Shrunk and perturbed at every arrival, the network ends above the plain warm start.",
        f"{PAPER}, Figure 7 [second-hand]",
        _in_the_end(SHRUNK, WARM),
    ),
    Claim(
        "shrink-perturb-faster",
        "warm_start_online",
        "After the last chunk, the shrunk and perturbed one fits all data in fewer updates than a fresh network; "
        "counted are those until the fit or the last epoch.",
        f"{PAPER}, Figure 7 [second-hand]",
        measured(_in_the_end(FRESH, SHRUNK), "steps"),
        unit="updates",
    ),
)

CLAIMS = (*TABLE, *ONLINE)
