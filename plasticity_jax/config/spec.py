"""A study, its models and its training plans, as frozen dataclasses.

A *plan* is a tuple of `Stage` records, each of which names the stage that it continues from (`after`), so it is a tree:
one pretraining can feed many tunings, and a fresh control starts from `init`.  Records of equal `name` are the branches
of one stage, distinguished by `branch`.  Those whose compiled fields agree train side by side on the run axis.

    (Stage("pretrain", branch="pretrain", after="init"),
     Stage("tune", branch="fresh", after="init"),
     Stage("tune", branch="pretrain+tune", after="pretrain"))

Random keys are derived from the seed and the stage *name*, so the two `tune` branches of a seed draw the same batches.
A field's annotation gives its type, its range, and whether it is compiled; see `rules`.  No field has a default here:
all defaults are in `configs/base.py`.
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
END = -1  # as an epoch: the end of the stage

RECIPES = ("random", "split", "blend")
AUGMENT = ("none", "crop", "crop_flip", "resized_crop", "resized_crop_flip")
CHANGES = ("none", "labels", "pixels")
DEFICITS = ("none", "blur")
KEEP = ("keep", "modules", "all")
PRECISIONS = ("default", "high", "highest")


@dataclasses.dataclass(frozen=True)
class Patch:
    """A small pattern, specific to the class, pasted into the middle of images; see `data.patches` for the source.

    share: fraction of the images that carry a patch, always the same images; 0 for none.  size: its side in pixels.
    shared: standard deviation of the normal component common to the patches of all classes.
    own: distance of a class's pattern from the common component, in every pixel and channel.
    patterns: number of patterns per class.
    alone, stretch: probability that a patched image is black except for the patch, and the factor on `own` in
        that case, times a uniform random number in [0, 1).
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
    """A stream of tasks in one stage; see `data.tasks` for the sources.

    change: what is redrawn for each task: `none`, the `labels` of the training images, or the order of the `pixels` of
        all images.  The stage's reset is applied at the start of every task; remedies keep their memories.
    epochs: length of a task.
    """

    change: Annotated[str, one_of(CHANGES), COMPILED]
    epochs: Annotated[int, whole(1)]


@dataclasses.dataclass(frozen=True)
class Data:
    """Which training images a stage draws from, and how.

    member: 1-based index of one of the data sets that `Study.dataset` joins with `+`; 0 for all of them.
    classes: a range (first, last + 1) in the seed's random order of the classes; only these are trained on,
        classified and tested.  Empty for all.
    recipe: `random` (the first `fraction` of the seed's random order; fraction 1 is everything),
        `split` (D_part of Berariu et al. 2021, appendix A.3), or `blend` (appendix A.2: everything with
        probability 1 - gamma^(50 n/N), else the first `fraction`; always with replacement).
    fraction: of the images, in (0, 1].
    splits, part, uniform: the number of data sets n+1, the 1-based index of this one, and the ratio r of A.3.
    gamma: the blending rate, in (0, 1).
    replacement: draw every example independently instead of going through one permutation per epoch.
    shuffle: draw a new permutation every epoch; without, all epochs have the same order and batches.
    label_noise: fraction of the images whose label is replaced by another class.
    deficit: a degradation of the images in training, not in evaluation: `none`, or `blur`, a quarter of the
        resolution; see `data.deficits` for the source.
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
        """Names of the groups of fields that have no effect."""
        return () if self.patch.share > 0 else ("patch",)


@dataclasses.dataclass(frozen=True)
class Reset:
    """What changes at the start of a stage: parameters of some modules become `shrink * old + perturb * fresh`.

    modules: module names (`stem`, `module2`, .., `head`), longer parameter paths, or `all`; empty for none.
    shrink, perturb: (0, 1) re-initialises, (0.4, 0.1) is shrink and perturb (Ash & Adams 2020), (1, 0) does nothing.
    statistics: which BatchNorm running statistics are re-initialised: `keep` for none, those of `modules`, or `all`.
    optimiser: which optimiser moments become zero, together with the step count of Adam's bias correction: `keep` for
        none, those of `modules`, or `all`.
    function: a further reset, applied last: `module:function`, or a name in `training.resets` or in
        `plasticity_jax.run(resets=...)`; empty for none.
    """

    modules: Annotated[tuple[str, ...], several(some_text)]
    shrink: Annotated[float, real("[0, inf)")]
    perturb: Annotated[float, real("[0, inf)")]
    statistics: Annotated[str, one_of(KEEP)]
    optimiser: Annotated[str, one_of(KEEP)]
    function: Annotated[str, NameOf("resets", empty=True, custom=True), COMPILED]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A period of training with one data recipe and one optimiser.

    after: `init`, or the stage to continue from: `STAGE` or `STAGE/BRANCH`, optionally with `@EPOCH` (an integer).
    epochs, steps: the length; `steps` is used if it is not 0.
    until_accuracy: end once the running train accuracy of an epoch reaches this value, in [0, 1]; 0 for never.
    micro_batch: number of images whose gradient is computed at once, 0 for the whole batch; BatchNorm takes its
        statistics over them (ghost batches).
    augment: of the images of each batch: `none`; `crop` (padded by 4 black pixels and cropped at random to the old
        size); `resized_crop` (a random region of 8 to 100 % of the area, resized); `crop_flip` and
        `resized_crop_flip` (also mirrored with probability 1/2, which changes the class of some digits and letters).
    trained: module names, or `all`.  The other modules are frozen bit for bit, and so are their moments and all
        running statistics, which BatchNorm then normalises with.
    ema: decay per step of an exponential moving average of weights and statistics, evaluated too; 0 for none.
    eval_every: number of epochs between evaluations; 0 for only at the start and the end.
    eval_tail: the same within the metric's window at the end of the stage.
    measure_steps: steps at which the study's instruments measure, 0 for the start; steps beyond the end are ignored.
    measure_every: number of epochs between measurements, which then are also made at the end; 0 for neither.  The run
        is evaluated at each of these times as well, whether or not the study has instruments.
    remedies: against the loss of plasticity, applied in this order; a config gives their numbers by name.
    label_smoothing: part of each label spread evenly over the classes (Szegedy et al. 2016, section 7); only the
        training loss uses smoothed labels.
    activation_noise: standard deviation of noise added to the outputs of normalisations in training, at the start of
        the stage; it decays linearly to 0 at the end.  See `models.jitter` for the source.
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
        """The values compiled into the program; runs of a stage for which they are equal train side by side."""
        return dict(compiled(self)) | {"data.member or data.classes": self.restricted}

    @property
    def restricted(self) -> bool:
        """Whether only some classes of the study's data are used."""
        return bool(self.data.member or self.data.classes)


Plan = tuple[Stage, ...]
HParams = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A network.

    name: a key of `models.MODELS`, or a custom `module:function` from (this record, number of classes) to a linen
        module.  `resnet` and `wide_resnet` use depth, width, stem and norm; `resnet18`, `resnet34`, `resnet50`,
        `resnet101` and `resnet152` have the blocks of He et al. 2016 in place of depth; `mlp` uses depth and width,
        `logistic` neither.
    depth, width: blocks per module and channels of the first; or hidden layers and units of each.
    dtype: of the computation: `float32`, `bfloat16`, or `auto`, which is bfloat16 on accelerators.
    activation: `relu`, `leaky_relu` or `crelu`, which doubles the number of outputs.
    dropout: fraction of outputs dropped.  Residual networks use `crelu` and `dropout` only inside each block.
    injected: the last modules, in which the remedy `plasticity_injection` adds new weights beside the old ones.
    zero_scale: initialise the scale of the last norm of each block to zero (networks called resnet only).
    """

    name: Annotated[str, NameOf("models", custom=True)]
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
    """Grid points that share compiled programs: one model, and one plan per point.

    scopes: (hyper-parameter, `STAGE` or `STAGE/BRANCH` that it belongs to); one that is not listed affects all stages.
    """

    name: str
    model: Model
    plans: tuple[tuple[HParams, Plan], ...]
    scopes: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """All that one config describes.

    name: selects the claims and the figure of the analysis; empty for none.
    holdout, holdout_seed: for data without a test split, the fraction of the training images that becomes the test
        set, and the seed that draws it.
    test_split: TFDS name of the test set; for joined data sets one name for all or one for each, as `validation+test`.
    resize: images are read with their shorter side resized to this many pixels and cropped to a square; 0 for neither.
    image_size: height and width of the network's input: the image's centre or `resized_crop`'s output; 0 for all of it.
    images: where images are stored during training, which changes no result: `device`, `host`, `disk`, or `auto`.
    train_images, test_images: number of images used; 0 for all.  validation_images: set aside of the training images.
    control: the branch that the others are compared with.
    window: the metric is the mean test accuracy over this last fraction of a run's last stage.
    instruments: expensive diagnostics, measured only at `Stage.measure_steps` and `Stage.measure_every`.
    measure_images: number of each run's training images that instruments use; all if there are fewer.
    train_eval_images: number of images of each training pool that are evaluated too, in eval mode, not augmented.
    mean, std: per channel, for the normalisation of images / 255; empty for those of the data set.
    matmul_precision: of float32 products and convolutions on accelerators, as in `jax.default_matmul_precision`;
        `default` for jax's setting.
    """

    name: Annotated[str, text]
    dataset: Annotated[str, some_text]
    data_dir: Annotated[str, text]
    holdout: Annotated[float, real("[0, 1)")]
    holdout_seed: Annotated[int, whole(0)]
    test_split: Annotated[str, some_text]
    resize: Annotated[int, whole(0)]
    image_size: Annotated[int, whole(0)]
    images: Annotated[str, one_of(("auto", "device", "host", "disk"))]
    train_images: Annotated[int, whole(0)]
    validation_images: Annotated[int, whole(0)]
    test_images: Annotated[int, whole(0)]
    seeds: Annotated[tuple[int, ...], several(whole(0), least=1)]
    packs: tuple[Pack, ...]
    control: Annotated[str, some_text]
    window: Annotated[float, real("(0, 1]")]
    diagnostics: Annotated[tuple[str, ...], NameOf("diagnostics", many=True, custom=True)]
    instruments: Annotated[tuple[str, ...], NameOf("instruments", many=True, custom=True)]
    measure_images: Annotated[int, whole(1)]
    train_eval_images: Annotated[int, whole(0)]
    mean: Annotated[tuple[float, ...], several(real("(-inf, inf)"), distinct=False)]
    std: Annotated[tuple[float, ...], several(real("(0, inf)"), distinct=False)]
    eval_batch: Annotated[int, whole(1)]
    matmul_precision: Annotated[str, one_of(PRECISIONS)]
    strategy: Annotated[str, NameOf("strategies")]
    checkpoint_seconds: Annotated[float, real("[0, inf)")]

    @property
    def data(self) -> tuple[str, str, float, int, str, int, int, str]:
        """The arguments of `datasets.load`."""
        held = self.holdout, self.holdout_seed
        return self.dataset, self.data_dir, *held, self.test_split, self.resize, self.image_size, self.images
