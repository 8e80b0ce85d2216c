"""Training plans as data.

A *plan* is a tuple of `Stage` records.  Each record names what it starts from (`after`), so a plan is a
tree: one pretraining can feed many tunings, and a fresh control is a stage that starts from `init`.
Records that share a `name` are the branches of one stage; `branch` tells them apart.  Those that share what
is compiled train side by side as rows of the run axis, the others after them.

    (Stage("pretrain", branch="pretrain", after="init"),
     Stage("tune", branch="fresh", after="init"),
     Stage("tune", branch="pretrain+tune", after="pretrain"))

Random keys are derived from the seed and the stage *name*, so the two `tune` branches of a seed see the
same batches.  No field here has a default: every default is written in `configs/base.py`.

A field says its type, its range, and whether runs that train side by side have to share it; see `rules`.
"""

import dataclasses
from typing import Annotated, Any

from plasticity_jax.config.optim import Optim
from plasticity_jax.config.remedies import ByName, Remedy, programs
from plasticity_jax.config.rules import (
    COMPILED,
    COMPILED_IF_ANY,
    Compiled,
    NameOf,
    compiled,
    one_of,
    real,
    several,
    some_text,
    text,
    truth,
    whole,
)

INIT = "init"
END = -1  # the epoch that means "where the stage ended"

RECIPES = ("random", "split", "blend")
AUGMENT = ("none", "crop", "crop_flip", "resized_crop", "resized_crop_flip")
CHANGES = ("none", "labels", "pixels")
DEFICITS = ("none", "blur")
KEEP = ("keep", "modules", "all")
PRECISIONS = ("default", "high", "highest")


@dataclasses.dataclass(frozen=True)
class Patch:
    """A small pattern pasted into the middle of images, which tells their class; see `patches` for the source.

    share: of the images that carry one, always the same; 0 for none.  size: pixels of a side.
    shared: scale of what the patches of all classes have in common, of a normal distribution.
    own, patterns: how far that of a class lies from it in each number, and how many patterns a class has.
    alone: probability that a draw of a patched image is black but for the patch.
    stretch: what `own` is multiplied by then, besides a random number in [0, 1).
    """

    share: Annotated[float, real("[0, 1]")]
    size: Annotated[int, whole(1), COMPILED]
    shared: Annotated[float, real("[0, inf)")]
    own: Annotated[float, real("[0, inf)")]
    patterns: Annotated[int, whole(1), COMPILED]
    alone: Annotated[float, real("[0, 1]")]
    stretch: Annotated[float, real("[0, inf)")]


@dataclasses.dataclass(frozen=True)
class Tasks:
    """A stream of tasks in one stage; see `tasks` for the sources.

    change: what is drawn anew for each task: `none`, the `labels` of the training images, or the order of the `pixels`
        of all images.  At the start of every task the stage's reset happens again; remedies keep their memories.
    epochs: of a task.
    """

    change: Annotated[str, one_of(CHANGES), COMPILED]
    epochs: Annotated[int, whole(1)]


@dataclasses.dataclass(frozen=True)
class Data:
    """Which training images a stage draws from, and how.

    member: which of the data sets that the study's name joins with `+`, from 1 on; 0 for all of them.
    classes: a range (first, last + 1) of the seed's random order of the classes, which alone are trained,
        told apart and tested; empty for all.
    recipe: `random` (the first `fraction` of the seed's random order; fraction 1 is everything),
        `split` (D_part of Berariu et al. 2021, appendix A.3), or `blend` (appendix A.2: everything with
        probability 1 - gamma^(50 n/N), else the first `fraction`; always with replacement).
    fraction: share of the images, in (0, 1].
    splits, part, uniform: number of data sets n+1, the 1-based index of this one, and the ratio r of A.3.
    gamma: the blending rate, in (0, 1).
    replacement: draw every example independently instead of walking through a permutation per epoch.
    shuffle: walk through another permutation each epoch; without, every epoch has the same order and batches.
    label_noise: share of the images whose label is replaced by another class.
    deficit: how images are worse where they are trained on, and not where networks are scored: `none`, or `blur`, a
        quarter of the resolution; see `deficits` for the source.
    """

    member: Annotated[int, whole(0)]
    classes: Annotated[tuple[int, ...], several(whole(0))]
    recipe: Annotated[str, one_of(RECIPES)]
    fraction: Annotated[float, real("(0, 1]")]
    splits: Annotated[int, whole(1)]
    part: Annotated[int, whole(1)]
    uniform: Annotated[float, real("[0, 1]")]
    gamma: Annotated[float, real("(0, 1)")]
    replacement: Annotated[bool, truth]
    shuffle: Annotated[bool, truth]
    label_noise: Annotated[float, real("[0, 1]")]
    patch: Patch
    tasks: Tasks
    deficit: Annotated[str, one_of(DEFICITS), COMPILED]

    @property
    def unused(self) -> tuple[str, ...]:
        """Groups of keys that change nothing."""
        return () if self.patch.share > 0 else ("patch",)


@dataclasses.dataclass(frozen=True)
class Reset:
    """What happens to a network at the start of a stage: `shrink * old + perturb * fresh` on some modules.

    modules: module names (`stem`, `module2`, .., `head`), longer parameter paths, or `all`; empty for none.
    shrink, perturb: (0, 1) re-initialises, (0.4, 0.1) is shrink and perturb (Ash & Adams 2020), (1, 0) is nothing.
    statistics: which BatchNorm running statistics become fresh: `keep` none, `modules` those of the modules
        above, `all`.
    optimiser: which optimiser moments become zero, and with them the count of steps that Adam corrects their bias by:
        `keep` none, `modules`, `all`.
    function: a further reset, applied last: `module:function`, or the name of one in `training.resets` or given to
        `plasticity_jax.run(resets=...)`; empty for none.
    """

    modules: Annotated[tuple[str, ...], several(some_text)]
    shrink: Annotated[float, real("[0, inf)")]
    perturb: Annotated[float, real("[0, inf)")]
    statistics: Annotated[str, one_of(KEEP)]
    optimiser: Annotated[str, one_of(KEEP)]
    function: Annotated[str, NameOf("resets", empty=True, own=True), COMPILED]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stretch of training under one data recipe and one optimiser.

    after: `init`, or where it continues: `STAGE`, `STAGE/BRANCH`, each optionally `@EPOCH` (a whole epoch).
    epochs, steps: the length; `steps` counts if it is not 0.
    until_accuracy: end as soon as the running train accuracy of an epoch reaches this share; 0 for never.
    micro_batch: images of a batch whose gradient is computed at once, 0 for all; BatchNorm takes its statistics over
        them (ghost batches).
    augment: what happens to the images of each batch: `none`, `crop` (padded by 4 black pixels and cropped at random
        to the old size), `resized_crop` (a random part of 8 to 100 % of the area, resized), or `crop_flip` and
        `resized_crop_flip` (half of them mirrored too, which makes other digits and letters of some).
    trained: module names, or `all`; the others are frozen to the bit, and so are their moments and all running
        statistics, which BatchNorm then uses.
    ema: decay per step of an exponential moving average of weights and statistics, evaluated too; 0 for none.
    eval_every: evaluate every so many epochs; 0 for only at the start and the end.
    eval_tail: the same inside the metric's window at the end of the stage.
    measure_steps: steps, 0 for the start, at which the study's instruments measure; those behind the end do nothing.
    measure_every: they measure every so many epochs too, and where the run ends; 0 for neither.  Wherever they measure,
        the run is evaluated as well, whether or not the study has instruments.
    remedies: what is done against the loss of plasticity, in this order; a config gives each one's numbers by its name.
    label_smoothing: share of each label that is spread over the classes that are told apart (Szegedy et al. 2016,
        section 7); the training loss is that of the smoothed labels, and all other losses are of plain ones.
    activation_noise: standard deviation of the noise that training adds to what normalisations give, at the start of
        the stage; it falls to 0 at its end in proportion to the steps that are left.  See `jitter` for the source.
    """

    name: Annotated[str, some_text]
    branch: Annotated[str, some_text]
    after: Annotated[str, some_text]
    data: Data
    epochs: Annotated[float, real("[0, inf)")]
    steps: Annotated[int, whole(0)]
    until_accuracy: Annotated[float, real("[0, 1]")]
    batch_size: Annotated[int, whole(1), COMPILED]
    micro_batch: Annotated[int, whole(0), COMPILED]
    augment: Annotated[str, one_of(AUGMENT), COMPILED]
    trained: Annotated[tuple[str, ...], several(some_text, least=1), COMPILED]
    ema: Annotated[float, real("[0, 1)"), COMPILED_IF_ANY]
    optim: Optim
    reset: Reset
    eval_every: Annotated[int, whole(0)]
    eval_tail: Annotated[int, whole(0)]
    measure_steps: Annotated[tuple[int, ...], several(whole(0))]
    measure_every: Annotated[int, whole(0)]
    remedies: Annotated[tuple[Remedy, ...], ByName(), Compiled(programs)]
    label_smoothing: Annotated[float, real("[0, 1)"), COMPILED_IF_ANY]
    activation_noise: Annotated[float, real("[0, inf)"), COMPILED_IF_ANY]

    def shape(self) -> dict[str, Any]:
        """What is compiled into the program: runs of a stage that agree in it train side by side."""
        return dict(compiled(self)) | {"data.member or data.classes": self.restricted}

    @property
    def restricted(self) -> bool:
        """Whether only some classes of the study's data are told apart."""
        return bool(self.data.member or self.data.classes)


Plan = tuple[Stage, ...]
HParams = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A network by its name, or a user's `module:function` from this record and a number of classes to a linen module.

    `resnet` and `wide_resnet` have depth blocks in each module, of width channels in the first, a stem and a norm;
    `resnet18`, `resnet34`, `resnet50`, `resnet101` and `resnet152` have the blocks of He et al. 2016 instead of a
    depth; `mlp` has depth and width, `logistic` neither.
    `zero_scale`: the last norm of each block of those called resnet begins with scale zero.
    `dtype` is of the compute: `float32`, `bfloat16`, or `auto`: bfloat16 on accelerators.
    `activation` is `relu`, `leaky_relu` or `crelu`, which has twice as many outputs, and `dropout` the share of outputs
    that is dropped; in residual networks, `crelu` and `dropout` are in the middle of each block alone.
    `injected` are the last modules, in which the remedy `plasticity_injection` puts new weights beside the old ones.
    """

    name: Annotated[str, NameOf("models", own=True)]
    depth: Annotated[int, whole(1)]
    width: Annotated[int, whole(1)]
    stem: Annotated[str, NameOf("stems")]
    norm: Annotated[str, NameOf("norms")]
    dtype: Annotated[str, NameOf("dtypes")]
    activation: Annotated[str, NameOf("activations")]
    dropout: Annotated[float, real("[0, 1)")]
    injected: Annotated[tuple[str, ...], several(some_text)]
    zero_scale: Annotated[bool, truth]


@dataclasses.dataclass(frozen=True)
class Pack:
    """Runs that one program shape can train: one model, and one plan for each point of the grid.

    scopes: (hyper-parameter, the `STAGE` or `STAGE/BRANCH` whose field it is); one that is not listed concerns all.
    """

    name: str
    model: Model
    plans: tuple[tuple[HParams, Plan], ...]
    scopes: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """All that one config asks for.  Counts of images are 0 for "all of them" (validation, train_eval: none).

    holdout, holdout_seed: share of the training images that is the test set of data without a test split, and the seed
        that draws it.
    test_split: what TFDS calls the test set; for joined sets one for all or one for each, as `validation+test`.
    resize: the shorter side of images becomes so long where they are read, and the middle of the longer one is kept; 0
        for images as they are, all of one size.
    image_size: height and width of what networks see of an image, its middle or what `resized_crop` makes of it; 0 for
        all of it.
    instruments: diagnostics that are dear, and so measured only when stages say (`measure_steps`, `measure_every`).
    measure_images: of each run's training images, so many are what instruments look at; all where there are fewer.
    train_eval_images: so many images of each pool are evaluated too, in eval mode and not augmented.
    mean, std: per channel, for the normalisation of images / 255; empty for those of the data set.
    control: the branch that the others are compared with.
    matmul_precision: of products and convolutions of float32 numbers on accelerators, as `jax.default_matmul_precision`
        has it; `default` is what jax is told otherwise.
    window: the metric is the mean test accuracy over this last share of a run's last stage.
    name: what the analysis knows the study by, to judge its claims and draw its figure; empty for no such thing.
    """

    name: Annotated[str, text]
    dataset: Annotated[str, some_text]
    data_dir: Annotated[str, text]
    holdout: Annotated[float, real("[0, 1)")]
    holdout_seed: Annotated[int, whole(0)]
    test_split: Annotated[str, some_text]
    resize: Annotated[int, whole(0)]
    image_size: Annotated[int, whole(0)]
    train_images: Annotated[int, whole(0)]
    validation_images: Annotated[int, whole(0)]
    test_images: Annotated[int, whole(0)]
    seeds: Annotated[tuple[int, ...], several(whole(0), least=1)]
    packs: tuple[Pack, ...]
    control: Annotated[str, some_text]
    window: Annotated[float, real("(0, 1]")]
    diagnostics: Annotated[tuple[str, ...], NameOf("diagnostics", many=True, own=True)]
    instruments: Annotated[tuple[str, ...], NameOf("instruments", many=True, own=True)]
    measure_images: Annotated[int, whole(1)]
    train_eval_images: Annotated[int, whole(0)]
    mean: Annotated[tuple[float, ...], several(real("(-inf, inf)"), distinct=False)]
    std: Annotated[tuple[float, ...], several(real("(0, inf)"), distinct=False)]
    eval_batch: Annotated[int, whole(1)]
    matmul_precision: Annotated[str, one_of(PRECISIONS)]
    strategy: Annotated[str, NameOf("strategies")]
    checkpoint_seconds: Annotated[float, real("[0, inf)")]

    @property
    def data(self) -> tuple[str, str, float, int, str, int, int]:
        """The data set, as `datasets.load` takes it."""
        held = self.holdout, self.holdout_seed
        return self.dataset, self.data_dir, *held, self.test_split, self.resize, self.image_size
