"""Every key of a config, with its type and its range; `own` are names that are given from Python."""

from collections.abc import Collection

from plasticity_jax.config import spec, validate
from plasticity_jax.config.validate import Check
from plasticity_jax.diagnostics.networks import DIAGNOSTICS
from plasticity_jax.models import resnet
from plasticity_jax.parallel import run_axis
from plasticity_jax.training import optimizers

RECIPES = ("random", "split", "blend")
AUGMENT = ("none", "crop", "crop_flip")
KEEP = ("keep", "modules", "all")


def study(own: Collection[str]) -> Check:
    """The keys at the top; models, stages and the grid are checked for themselves."""
    return validate.group(
        dict,
        name=validate.text,
        dataset=validate.some_text,
        data_dir=validate.text,
        holdout=validate.real("[0, 1)"),
        holdout_seed=validate.whole(0),
        train_images=validate.whole(0),
        validation_images=validate.whole(0),
        test_images=validate.whole(0),
        seeds=validate.several(validate.whole(0), least=1),
        model=validate.anything,
        stages=validate.anything,
        control=validate.some_text,
        window=validate.real("(0, 1]"),
        diagnostics=validate.several(validate.one_of((*DIAGNOSTICS, *own))),
        train_eval_images=validate.whole(0),
        mean=validate.several(validate.real("(-inf, inf)"), distinct=False),
        std=validate.several(validate.real("(0, inf)"), distinct=False),
        eval_batch=validate.whole(1),
        strategy=validate.one_of(("auto", *run_axis.STRATEGIES)),
        checkpoint_seconds=validate.real("[0, inf)"),
        grid=validate.anything,
    )


def model(own: Collection[str]) -> Check:
    return validate.group(
        spec.Model,
        name=validate.one_of((*resnet.MODELS, *own)),
        depth=validate.whole(1),
        width=validate.whole(1),
        stem=validate.one_of(resnet.STEMS),
        norm=validate.one_of(resnet.NORMS),
        dtype=validate.one_of(resnet.DTYPES),
    )


def stage(own: Collection[str]) -> Check:
    return validate.group(
        dict,
        after=validate.some_text,
        data=_data(),
        epochs=validate.real("[0, inf)"),
        steps=validate.whole(0),
        until_accuracy=validate.real("[0, 1]"),
        batch_size=validate.whole(1),
        micro_batch=validate.whole(0),
        augment=validate.one_of(AUGMENT),
        trained=validate.several(validate.some_text, least=1),
        ema=validate.real("[0, 1)"),
        optim=_optim(),
        reset=_reset(own),
        eval_every=validate.whole(0),
        eval_tail=validate.whole(0),
        branches=validate.anything,
    )


def _data() -> Check:
    patch = validate.group(
        spec.Patch,
        share=validate.real("[0, 1]"),
        size=validate.whole(1),
        shared=validate.real("[0, inf)"),
        own=validate.real("[0, inf)"),
        patterns=validate.whole(1),
        alone=validate.real("[0, 1]"),
        stretch=validate.real("[0, inf)"),
    )
    return validate.group(
        spec.Data,
        member=validate.whole(0),
        classes=validate.several(validate.whole(0)),
        recipe=validate.one_of(RECIPES),
        fraction=validate.real("(0, 1]"),
        splits=validate.whole(1),
        part=validate.whole(1),
        uniform=validate.real("[0, 1]"),
        gamma=validate.real("(0, 1)"),
        replacement=validate.truth,
        shuffle=validate.truth,
        label_noise=validate.real("[0, 1]"),
        patch=patch,
    )


def _optim() -> Check:
    detector = validate.group(
        spec.Detector,
        name=validate.one_of(optimizers.DETECTORS),
        window=validate.whole(1),
        rtol=validate.real("[0, 1)"),
        atol=validate.real("[0, inf)"),
        z=validate.real("[0, inf)"),
        patience=validate.whole(0),
        least=validate.whole(0),
        keep=validate.real("(0, 1]"),
        capacity=validate.whole(4),
        significance=validate.real("(0, 1)"),
        end_last=validate.truth,
    )
    return validate.group(
        spec.Optim,
        name=validate.one_of(optimizers.OPTIMISERS),
        learning_rate=validate.real("(0, inf)"),
        momentum=validate.real("[0, 1)"),
        nesterov=validate.truth,
        b1=validate.real("[0, 1)"),
        b2=validate.real("[0, 1)"),
        eps=validate.real("(0, inf)"),
        weight_decay=validate.real("[0, inf)"),
        clip_norm=validate.real("[0, inf)"),
        schedule=validate.one_of(optimizers.SCHEDULES),
        warmup=validate.real("[0, 1]"),
        milestones=validate.several(validate.real("(0, 1)")),
        decay=validate.real("[0, 1]"),
        detector=detector,
    )


def _reset(own: Collection[str]) -> Check:
    return validate.group(
        spec.Reset,
        modules=validate.several(validate.some_text),
        shrink=validate.real("[0, inf)"),
        perturb=validate.real("[0, inf)"),
        statistics=validate.one_of(KEEP),
        optimiser=validate.one_of(KEEP),
        function=validate.one_of(own, empty=True),
    )
