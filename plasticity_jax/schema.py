"""Every key of a config, with its type and its range; `own` are names that are given from Python."""

from collections.abc import Collection

from plasticity_jax import checks, models, optim, runs, stages
from plasticity_jax.checks import Check
from plasticity_jax.diagnostics import DIAGNOSTICS

RECIPES = ("random", "split", "blend")
AUGMENT = ("none", "crop", "crop_flip")
KEEP = ("keep", "modules", "all")


def study(own: Collection[str]) -> Check:
    """The keys at the top; models, stages and the grid are checked for themselves."""
    return checks.group(
        dict,
        name=checks.text,
        dataset=checks.some_text,
        data_dir=checks.text,
        holdout=checks.real("[0, 1)"),
        holdout_seed=checks.whole(0),
        train_images=checks.whole(0),
        validation_images=checks.whole(0),
        test_images=checks.whole(0),
        seeds=checks.several(checks.whole(0), least=1),
        model=checks.anything,
        stages=checks.anything,
        control=checks.some_text,
        window=checks.real("(0, 1]"),
        diagnostics=checks.several(checks.one_of((*DIAGNOSTICS, *own))),
        train_eval_images=checks.whole(0),
        mean=checks.several(checks.real("(-inf, inf)"), distinct=False),
        std=checks.several(checks.real("(0, inf)"), distinct=False),
        eval_batch=checks.whole(1),
        strategy=checks.one_of(("auto", *runs.STRATEGIES)),
        checkpoint_seconds=checks.real("[0, inf)"),
        grid=checks.anything,
    )


def model(own: Collection[str]) -> Check:
    return checks.group(
        stages.Model,
        name=checks.one_of((*models.MODELS, *own)),
        depth=checks.whole(1),
        width=checks.whole(1),
        stem=checks.one_of(models.STEMS),
        norm=checks.one_of(models.NORMS),
        dtype=checks.one_of(models.DTYPES),
    )


def stage(own: Collection[str]) -> Check:
    return checks.group(
        dict,
        after=checks.some_text,
        data=_data(),
        epochs=checks.real("[0, inf)"),
        steps=checks.whole(0),
        until_accuracy=checks.real("[0, 1]"),
        batch_size=checks.whole(1),
        micro_batch=checks.whole(0),
        augment=checks.one_of(AUGMENT),
        trained=checks.several(checks.some_text, least=1),
        ema=checks.real("[0, 1)"),
        optim=_optim(),
        reset=_reset(own),
        eval_every=checks.whole(0),
        eval_tail=checks.whole(0),
        branches=checks.anything,
    )


def _data() -> Check:
    patch = checks.group(
        stages.Patch,
        share=checks.real("[0, 1]"),
        size=checks.whole(1),
        shared=checks.real("[0, inf)"),
        own=checks.real("[0, inf)"),
        patterns=checks.whole(1),
        alone=checks.real("[0, 1]"),
        stretch=checks.real("[0, inf)"),
    )
    return checks.group(
        stages.Data,
        member=checks.whole(0),
        classes=checks.several(checks.whole(0)),
        recipe=checks.one_of(RECIPES),
        fraction=checks.real("(0, 1]"),
        splits=checks.whole(1),
        part=checks.whole(1),
        uniform=checks.real("[0, 1]"),
        gamma=checks.real("(0, 1)"),
        replacement=checks.truth,
        shuffle=checks.truth,
        label_noise=checks.real("[0, 1]"),
        patch=patch,
    )


def _optim() -> Check:
    detector = checks.group(
        stages.Detector,
        name=checks.one_of(optim.DETECTORS),
        window=checks.whole(1),
        rtol=checks.real("[0, 1)"),
        atol=checks.real("[0, inf)"),
        z=checks.real("[0, inf)"),
        patience=checks.whole(0),
        least=checks.whole(0),
        keep=checks.real("(0, 1]"),
        capacity=checks.whole(4),
        significance=checks.real("(0, 1)"),
        end_last=checks.truth,
    )
    return checks.group(
        stages.Optim,
        name=checks.one_of(optim.OPTIMISERS),
        learning_rate=checks.real("(0, inf)"),
        momentum=checks.real("[0, 1)"),
        nesterov=checks.truth,
        b1=checks.real("[0, 1)"),
        b2=checks.real("[0, 1)"),
        eps=checks.real("(0, inf)"),
        weight_decay=checks.real("[0, inf)"),
        clip_norm=checks.real("[0, inf)"),
        schedule=checks.one_of(optim.SCHEDULES),
        warmup=checks.real("[0, 1]"),
        milestones=checks.several(checks.real("(0, 1)")),
        decay=checks.real("[0, 1]"),
        detector=detector,
    )


def _reset(own: Collection[str]) -> Check:
    return checks.group(
        stages.Reset,
        modules=checks.several(checks.some_text),
        shrink=checks.real("[0, inf)"),
        perturb=checks.real("[0, inf)"),
        statistics=checks.one_of(KEEP),
        optimiser=checks.one_of(KEEP),
        function=checks.one_of(own, empty=True),
    )
