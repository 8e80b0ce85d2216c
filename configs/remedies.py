"""Remedies compared in protocols that need plasticity: Ash & Adams 2020, Berariu 2021, Dohare 2024, Lee 2024.

    python -m plasticity_jax.main --config=configs/remedies.py --workdir=runs/remedies
    python -m plasticity_jax.main --config=configs/remedies.py:small --workdir=runs/remedies-small
    python -m plasticity_jax.main --config=configs/remedies.py:digits --workdir=runs/half-digits
    python -m plasticity_jax.main --config=configs/remedies.py:digits,protocol=pixels --workdir=runs/pixels-digits
    python -m analysis.remedies runs/half-digits runs/pixels-digits --out runs/remedies.md

Arguments, joined by commas in any order: one of `small`, `digits` and `smoke`, without which the scale is the papers';
`protocol=half` (default), `tenth`, `chunks`, `classes`, `labels` or `pixels`; `noise=0.5` with `tenth`; `chunks=50`
(default 10) with `chunks`; `remedies=l2_init+redo` for some of the remedies only.

Protocol: each has `fresh` weights, `warm` ones that continue without a remedy, and a branch for each remedy.
    half     a random half, then everything (Berariu et al.).
    tenth    a random tenth, then everything (Lee et al. 2024, Hare & Tortoise; Han et al. 2026, FIRE); with `noise=0.5`
             half of the tenth's labels are wrong.
    chunks   10 or 50 growing parts of i.i.d. data, each until 99.9 % train accuracy (Shin et al. 2024, DASH).
    classes  the classes arrive in groups, and earlier ones stay (Dohare et al. 2024); only classes that have arrived
             are predicted and tested.
    labels   a stream of tasks in one stage, each with new random labels for the same images: trainability, the other
             kind of loss of plasticity (Lyle et al. 2023, Kumar et al. 2023).  The metric is the train accuracy in the
             last epoch of each task, over the last fifth of the tasks.
    pixels   a stream of tasks in one stage, each with another permutation of the pixels, and each one epoch long,
             so the running train accuracy is the online accuracy of the task (Dohare et al. 2024); an MLP.
In streams, `fresh` draws new weights for every task, and resets are applied at the start of every task.

Remedies: those of `at_switch` act at the start of a stage or task, those of `between_stages` at the start of a stage,
those of `throughout` during all training from the first stage on; each is a line of `configs/treatments.py`.  A full
reset is `fresh` itself.  In protocols with several stages every branch starts with new moments of the optimiser, as in
the papers; in streams this is the remedy `optimiser_reset`.

Hyper-parameters: numbers in a list are the settings 1, 2 and 3 of the remedy, which train side by side as rows of the
run axis.  `analysis.remedies` takes the setting with the best mean accuracy on `validation_images`, which are held out
of the training images; in `labels`, where nothing generalises, for each seed the one that is best at the other seeds.
Test images are not used for any choice.

Claim (written before any run): the warm start ends below fresh weights in `half`, `tenth` and `chunks`, and more so
after wrong labels; in `labels` and `pixels` a network without a remedy ends below one that is fresh for every task.
Shrink and perturb ends within a point of fresh weights (Ash & Adams 2020); a larger rate closes a part of the gap, and
resetting the last four modules closes it (Berariu et al. 2021); L2-init keeps a network trainable (Kumar et al. 2023);
ReDo helps (Sokar et al. 2023).  `analysis/claims/remedies.py` has these claims as data.

Choices: the fractions, groups, chunks and ends are the papers'; so are Adam at 1e-3 of `half`, SGD of `classes` and
`chunks`.  Ours: the same network and Adam without warm-up and clipping in `tenth` instead of AdamW; MNIST, the number
of images, tasks and epochs of `labels` and `pixels`, which are near those of Kumar et al. but not checked; the
settings; the smaller scales take Adam at 1e-3 everywhere.  Remedies that change the network of all branches (LayerNorm,
and with it normalise and project; CReLU; dropout) need a separate study, with `--config.model.norm=layer` and so on.
So does plasticity injection, in the last two modules, which is included only by name:
`remedies=plasticity_injection+fire`.  Digits are not augmented, and neither are images in streams.

Expected, in test accuracy (online accuracy in streams):
    paper    half: fresh 70 to 79 %, warm 3 to 4 points below (Berariu et al., Ash & Adams).  Not run.
    small    half: fresh 33.7 %, warm 30.0 %, a gap of 3.7 points [2.6, 4.8].  Above fresh end `augmentation` (48.5 %),
             `rewarmed_rate` (46.0 %), `larger_rate` (44.7 %), `shrink_perturb` (43.1 %), `dash` (42.5 %) and `fire`
             (41.0 %).  Of the gap `last_reset` recovers 96 % [41, 148], `head_reset` 27 % [7, 42], `distillation`
             73 % [45, 100]; of `l2_init`, `hare_tortoise` and `redo` the interval contains 0.  5 seeds, those
             12 remedies (measured on CIFAR-10 re-encoded as JPEG: `--config.dataset=cifar10_jpeg`,
             analysis/results/remedies_half).
             tenth: fresh 33.7 %, warm 30.3 %, a gap of 3.4 points [2.5, 4.3]; the same six end above fresh (40.5 to
             47.6 %).  Of the gap `last_reset` recovers 80 % [47, 108], `head_reset` 69 % [40, 106], `distillation` 68 %
             [7, 110], `hare_tortoise` 23 % [5, 44], `l2_init` 19 % [5, 31]; `redo` recycled no unit.  5 seeds, the same
             12 remedies (measured on the same data, analysis/results/remedies_tenth).
             labels: fresh 100 %, warm 16 %, a gap of 84 points [80, 87].  100 % are kept by `last_reset`,
             `shrink_perturb`, `spectral`, `weight_clipping`, `redo`, `continual_backprop`, `self_normalised_resets` and
             `hare_tortoise`; the share recovered by `l2_init` is 99 % [98, 101], by `optimiser_reset` 69 % [56, 81], by
             `l2` 68 % [57, 79], by `head_reset` 50 % [36, 64], by `larger_rate` -4 % [-9, 0].  20 tasks of 256 images,
             5 seeds, 13 remedies (measured on CIFAR-10 re-encoded as JPEG, analysis/results/remedies_labels).  Other
             protocols: not run.
    digits   half: fresh 78 %, warm 2 to 3 points below, as in `configs/multistage.py`.  All remedies: not yet run.
             pixels: online accuracy of tasks 49 to 60, fresh 45.1 %, warm 22.9 %, gap 22.2 points [18.9, 25.4]; the
             share of it that is recovered is 60 % [51, 71] by `last_reset`, 41 % [32, 52] by `optimiser_reset`, 40 %
             [36, 45] by `larger_rate`, 21 % [16, 26] by `l2_init`, 18 % [8, 26] by `redo`; `shrink_perturb` at every
             task, with a shrink of 0.2 to 0.6, ends 11 points below warm.  Measured on 2 CPU cores with 10 remedies, 5
             seeds and 60 tasks:
             `--config.seeds=0,1,2,3,4 --config.stages.stream.epochs=60 --config.strategy=map`.

Cost, of all remedies and settings (5 seeds; small 3, digits 5, in streams 8):
    paper    a job for several GPUs; `--dry_run` counts its images.  Not yet measured.
    small    half with 12 remedies and 5 seeds: 37.8 million images; 8 h 4 min on 2 CPU cores that had other work too;
             tenth with the same: 32.1 million, 5 h 1 min beside others; labels with 13: 44.8 million, 73 min.  Other
             protocols: not yet measured.
    digits   pixels with one setting each of four remedies, `remedies=l2_init+redo+shrink_perturb+head_reset` and
             `--config.grid=()`, 8 seeds: 11.1 million images, 96 s on 2 CPU cores, 65 s when compiled before.  Others
             minutes, not timed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.configs import presets, treatments
from plasticity_jax.configs.base import base, optimiser, parse_arg, stage, treated
from plasticity_jax.errors import ConfigError

PROTOCOLS = ("half", "tenth", "chunks", "classes", "labels", "pixels")
STREAMS = ("labels", "pixels")
SETTINGS = ("1", "2", "3")


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    choices = {
        "protocol": PROTOCOLS,
        "noise": ("0", "0.5"),
        "chunks": ("10", "50"),
        "remedies": ("all", *treatments.names()),
    }
    preset, chosen = parse_arg(arg, presets.NAMES, several=("remedies",), **choices)
    protocol, noise, chunks = chosen["protocol"], float(chosen["noise"]), int(chosen["chunks"])
    for key, default, place in (("noise", "0", "tenth"), ("chunks", "10", "chunks")):
        if chosen[key] != default and protocol != place:
            raise ConfigError(f"argument {key}={chosen[key]} is only for protocol={place}")
    config = base(f"remedies_{protocol}{'_noisy' * bool(noise)}")
    config.model.dtype = "float32"  # on every device
    only = () if chosen["remedies"] == "all" else tuple(chosen["remedies"].split("+"))
    if protocol in STREAMS:
        _stream(config, protocol, preset, only)
    else:
        made = {"half": _half, "tenth": lambda: _tenth(noise), "chunks": lambda: _chunks(chunks), "classes": _classes}
        _stages(config, made[protocol](), protocol, preset, only)
        if noise and preset:
            config.stages.pretrain.data.label_noise = noise
    return config


def _half() -> dict[str, dict[str, Any]]:
    return {"pretrain": {"data": {"fraction": 0.5}, "epochs": 350}, "tune": {"epochs": 500}}


def _tenth(noise: float) -> dict[str, dict[str, Any]]:
    before = {"fraction": 0.1, "label_noise": noise}
    return {"pretrain": {"data": before, "epochs": 1000, "batch_size": 256}, "tune": {"epochs": 111, "batch_size": 256}}


def _chunks(chunks: int) -> dict[str, dict[str, Any]]:
    fields = {"epochs": 350, "until_accuracy": 0.999, "optim": optimiser("momentum"), "eval_every": 0}
    parts = [{"recipe": "split", "splits": chunks, "part": part} for part in range(1, chunks + 1)]
    return {name: {"data": data, **fields} for name, data in zip(_names(chunks), parts, strict=True)}


def _classes(groups: int = 20, each: int = 5) -> dict[str, dict[str, Any]]:
    rule = {"learning_rate": 0.1, "weight_decay": 5e-4, "schedule": "step", "milestones": (0.3, 0.6, 0.8), "decay": 0.2}
    fields = {"epochs": 200, "batch_size": 90, "optim": optimiser("momentum", **rule)}
    return {name: {"data": {"classes": (0, each * (i + 1))}, **fields} for i, name in enumerate(_names(groups))}


def _names(count: int) -> list[str]:
    """The last stage is `tune` in every protocol."""
    return [*(f"part{i}" for i in range(1, count)), "tune"]


def _stages(
    config: ConfigDict, fields: dict[str, dict[str, Any]], protocol: str, preset: str, only: Sequence[str]
) -> None:
    """Adds the stages of a protocol, with a branch for each remedy, or for those in `only`."""
    if preset:
        if protocol == "classes":
            fields = _classes(groups=5, each=2)
        if protocol == "chunks" and preset == "digits":
            fields = _chunks(5)
        for record in fields.values():
            record |= {"optim": optimiser("adam"), "batch_size": 128}
    elif protocol == "classes":
        config.dataset = "cifar100"
    rule = next(iter(fields.values())).get("optim", optimiser("adam"))
    config.dataset = "digits" if preset == "digits" else config.dataset
    whole = treatments.some(treatments.throughout(100 if preset else 1000, config.dataset, rule.name), only)
    switch = treatments.some(
        treatments.at_switch(rule.learning_rate, config.model.name) | treatments.between_stages(only), only
    )
    treatments.check(whole | switch, only, protocol)
    if treatments.INJECTION in switch:
        config.model.injected = treatments.MODULES[config.model.name][-2:]
    before = ""
    for name, given in fields.items():
        ways = {"warm": {}, **whole, **(switch if before else {})}
        branches = {"fresh": {"after": "init"}} if name == "tune" else {}
        for way, changes in ways.items():
            first = before == next(iter(fields)) and way in switch  # the first stage has no such branch
            after = f"{before}/{'warm' if first else way}" if before else "init"
            branches[way] = {"after": after, **_branch(changes)}
        config.stages[name] = stage(branches=branches, **given)
        before = name
    config.validation_images = 5000
    presets.apply(config, preset)
    if preset:
        config.validation_images = 200 if preset == "digits" else 1000
        if protocol in ("chunks", "classes") and preset != "smoke":
            presets.lengths(config, pretrain=20, tune=40, eval_every=10)
    config.grid = (("setting", dict(_settings(config, whole | switch))),)


def _stream(config: ConfigDict, protocol: str, preset: str, only: Sequence[str]) -> None:
    """One stage that is a stream of tasks."""
    digits = preset == "digits"
    images, tasks, epochs, batch = {
        ("labels", False): (1200, 50, 400, 16),
        ("labels", True): (256, 20, 50, 32),
        ("pixels", False): (10_000, 500, 1, 16),
        ("pixels", True): (2000, 100, 1, 32),
    }[protocol, bool(preset)]
    if digits:
        images, tasks, epochs, batch = (256, 30, 30, 32) if protocol == "labels" else (0, 200, 1, 64)
    config.dataset = "digits" if digits else "cifar10" if preset else "mnist"
    config.model.update(name="mlp", depth=2, width=100)
    config.update(seeds=tuple(range(8 if digits else 3 if preset else 5)), diagnostics=(), train_images=images)
    config.validation_images = 200 if digits else 1000 if preset else 5000
    every = 100 if preset else 1000
    whole = treatments.throughout(
        every, "digits", "adam"
    )  # augmentation makes no sense with random labels or permuted pixels
    ways = treatments.some(whole | treatments.at_switch(1e-3, "mlp") | treatments.of_streams(), only)
    treatments.check(ways, only, protocol)
    kept = {"reset": {"optimiser": "keep"}}
    branches: dict[str, dict[str, Any]] = {"fresh": {"reset": {"modules": ("all",)}}, "warm": kept}
    branches |= {way: _merged(kept, _branch(changes)) for way, changes in ways.items()}
    config.stages.stream = stage(
        data={"tasks": {"change": protocol, "epochs": epochs}},
        epochs=float(tasks * epochs),
        batch_size=batch,
        eval_every=epochs,
        eval_tail=0,
        branches=branches,
    )
    if preset == "smoke":
        config.stages.stream.update(steps=30, eval_every=0)
        config.test_images = 1000
    config.grid = (("setting", dict(_settings(config, ways))),)


def _branch(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes of a branch as nested groups, with the second value of each list, and complete remedies."""
    groups_of: dict[str, Any] = {}
    for path, value in changes.items():
        *groups, key = path.split(".")
        holder = groups_of
        for group in groups:
            holder = holder.setdefault(group, {})
        holder[key] = value[1] if isinstance(value, list) else value
    return groups_of | ({"remedies": treated(**groups_of["remedies"])} if "remedies" in groups_of else {})


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both groups, the keys of `other` before those of `one`."""
    deeper = {key: _merged(one[key], other[key]) for key in one.keys() & other.keys() if isinstance(one[key], Mapping)}
    return {**one, **other, **deeper}


def _settings(config: ConfigDict, ways: treatments.Ways) -> Iterator[tuple[str, dict[str, Any]]]:
    """(setting, its changes in every stage that has the branch); branches without settings are not repeated."""
    for i, word in enumerate(SETTINGS):
        yield (
            word,
            {
                f"stages.{name}.branches.{way}.{path}": value[i]
                for name, record in config.stages.items()
                for way, changes in ways.items()
                if way in record.branches
                for path, value in changes.items()
                if isinstance(value, list)
            },
        )
