"""The faults: plausible programming mistakes, one in a place."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mistake in one place.

    name: what is wrong then.  file: where, from the root of the repository.
    old, new: the text there, which occurs once in the file, and what it becomes.
    tests: the files that should notice, as `training/resets` for tests/training/test_resets.py, with blanks between.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def files(self) -> list[str]:
        """Paths of `tests`, from the root of the repository."""
        places = [word.rpartition("/") for word in self.tests.split()]
        return [f"tests/{folder}{slash}test_{name}.py" for folder, slash, name in places]


LAB, ANALYSIS, LAUNCH = "plasticity_jax/", "analysis/", "launch/"

TRAINING = (
    Fault(
        "a batch size is data",
        LAB + "config/spec.py",
        "batch_size: Annotated[int, whole(1), COMPILED]",
        "batch_size: Annotated[int, whole(1)]",
        "config/fields",
    ),
    Fault(
        "a user's modules come first",
        LAB + "cli.py",
        "sys.path.append(os.getcwd())",
        "sys.path.insert(0, os.getcwd())",
        "cli",
    ),
    Fault(
        "a reset subtracts",
        LAB + "training/resets.py",
        "kept + perturb * new",
        "kept - perturb * new",
        "training/resets",
    ),
    Fault(
        "statistics are fresh where they should be kept",
        LAB + "training/resets.py",
        "jnp.where(is_fresh, new, old)",
        "jnp.where(is_fresh, old, new)",
        "training/resets",
    ),
    Fault(
        "moments of other modules are forgotten",
        LAB + "training/resets.py",
        '(reset.optimiser == "modules" and inside)',
        '(reset.optimiser == "modules" and not inside)',
        "training/resets",
    ),
    Fault(
        "Adam's steps count from 1",
        LAB + "training/optimizers.py",
        "1 - b**n",
        "1 - b ** (n + 1)",
        "training/optimizers",
    ),
    Fault("the cosine rises", LAB + "training/schedules.py", "1.0 + jnp.cos(", "1.0 - jnp.cos(", "training/optimizers"),
    Fault(
        "a milestone comes a step late",
        LAB + "training/schedules.py",
        "done >= h.milestones",
        "done > h.milestones",
        "training/optimizers",
    ),
    Fault(
        "warm-up never ends",
        LAB + "training/schedules.py",
        "jnp.maximum(h.warmup, 1e-9), 1.0)",
        "1.0, 1.0)",
        "training/optimizers",
    ),
    Fault(
        "what is to be spared decays",
        LAB + "training/optimizers.py",
        "if p.ndim > 1 else g",
        "if p.ndim > 0 else g",
        "training/optimizers",
    ),
    Fault(
        "the rate falls with the batch",
        LAB + "config/optim.py",
        "batch_size / self.reference_batch",
        "self.reference_batch / batch_size",
        "training/optimizers",
    ),
    Fault(
        "labels are spread over classes that are not told apart",
        LAB + "training/gradient.py",
        "if isinstance(classes, tuple) else classes\n    spread",
        "if True else classes\n    spread",
        "training/gradient",
    ),
    Fault(
        "a bottleneck halves in its first convolution",
        LAB + "models/resnet.py",
        "((1, 1, 1), (2, 3, self.stride))",
        "((1, 1, self.stride), (2, 3, 1))",
        "models/resnet",
    ),
    Fault(
        "no scale of a basic block begins at zero",
        LAB + "models/resnet.py",
        'y = norm(name="norm2", scale=self.scale)(y)',
        'y = norm(name="norm2")(y)',
        "models/resnet",
    ),
    Fault(
        "a resized part takes from what is around it",
        LAB + "data/crops.py",
        "jnp.where((place > start) & (place < start + length), weights, 0.0)",
        "weights",
        "data/crops",
    ),
    Fault(
        "networks see a corner",
        LAB + "data/crops.py",
        "(images.shape[1] - height) // 2, (images.shape[2] - width) // 2",
        "0, 0",
        "data/crops",
    ),
    Fault(
        "RMSprop's eps is in the root",
        LAB + "training/optimizers.py",
        "eps_in_sqrt=False",
        "eps_in_sqrt=True",
        "training/optimizers",
    ),
    Fault(
        "AdamW decays twice",
        LAB + "training/optimizers.py",
        "if optim.name in DECOUPLED else",
        "if False else",
        "training/optimizers",
    ),
    Fault(
        "window looks for a rise",
        LAB + "training/detectors.py",
        "old.mean() - new.mean()",
        "new.mean() - old.mean()",
        "training/detectors",
    ),
    Fault(
        "plateau loses patience early",
        LAB + "training/detectors.py",
        "bad > patience",
        "bad >= patience",
        "training/detectors",
    ),
    Fault(
        "sasa's interval is too narrow",
        LAB + "training/detectors.py",
        "student(1 - significance / 2,",
        "student(1 - significance,",
        "training/detectors",
    ),
    Fault(
        "a stage that ends early skips too much",
        LAB + "training/autodecay.py",
        "bounds[stage] - time",
        "bounds[stage] - step",
        "training/autodecay",
    ),
    Fault(
        "an epoch's sums go on", LAB + "training/step.py", "jnp.where(epoch_ends, 0.0, tally)", "tally", "training/step"
    ),
    Fault("an epoch never ends", LAB + "training/step.py", "position + 1 == task", "position == task", "training/step"),
    Fault(
        "accuracy is compared in another unit",
        LAB + "training/step.py",
        "last[1] >= 100.0 * task",
        "last[1] >= task",
        "training/step",
    ),
    Fault("a diverged run goes on", LAB + "training/step.py", "reached | failed |", "reached |", "training/step"),
    Fault(
        "the average follows too fast",
        LAB + "training/step.py",
        "task.ema * old + (1 - task.ema) * now",
        "(1 - task.ema) * old + task.ema * now",
        "training/step",
    ),
    Fault(
        "moments of frozen modules move",
        LAB + "training/step.py",
        "_hold(of_parameters(opt, frozen), state.opt, opt)",
        "_hold(of_parameters(opt, frozen), opt, opt)",
        "training/step",
    ),
    Fault(
        "the schedule is a step ahead",
        LAB + "training/step.py",
        "time / task.steps)",
        "(time + 1) / task.steps)",
        "training/step",
    ),
    Fault(
        "the last batch of an evaluation has an image too many",
        LAB + "training/evaluation.py",
        "mask = slots < source.size",
        "mask = slots <= source.size",
        "training/step",
    ),
    Fault(
        "evaluation takes the batch's statistics",
        LAB + "training/evaluation.py",
        "image, train=False)[0], source.classes",
        "image, train=True)[0], source.classes",
        "training/step",
    ),
    Fault(
        "gradients of micro-batches add up",
        LAB + "training/gradient.py",
        "lambda x: x / count, (slopes, stats)",
        "lambda x: x, (slopes, stats)",
        "training/gradient",
    ),
    Fault(
        "statistics of a frozen network move",
        LAB + "training/gradient.py",
        "stats if all(moves) else state.stats",
        "stats",
        "training/gradient",
    ),
    Fault(
        "classes of others take part",
        LAB + "training/gradient.py",
        "jnp.where(classes, logits, OUT)",
        "jnp.where(classes, logits, 0.0)",
        "training/gradient",
    ),
)

DRAWING = (
    Fault("keys have no name", LAB + "data/batches.py", "zlib.crc32(name.encode())", 'zlib.crc32(b"")', "data/batches"),
    Fault(
        "the key of a stage has no stage",
        LAB + "runner/schedule.py",
        'batches.key(run.seed, "stage", run.stage.name)',
        'batches.key(run.seed, "stage")',
        "runner/schedule",
    ),
    Fault(
        "draws have no step",
        LAB + "data/batches.py",
        "split(jax.random.fold_in(k, step), 3)",
        "split(k, 3)",
        "data/batches",
    ),
    Fault(
        "all epochs have one order",
        LAB + "data/batches.py",
        "uniform(jax.random.fold_in(k, epoch), slots.shape)",
        "uniform(k, slots.shape)",
        "data/batches",
    ),
    Fault(
        "an order has a slot of the padding",
        LAB + "data/batches.py",
        "jnp.where(slots < source.size, draws",
        "jnp.where(slots <= source.size, draws",
        "data/batches",
    ),
    Fault(
        "blending ends early",
        LAB + "data/batches.py",
        "(50.0 * step / steps)",
        "(500.0 * step / steps)",
        "data/batches",
    ),
    Fault("images are upside down", LAB + "data/batches.py", "cropped[:, :, ::-1]", "cropped[:, ::-1]", "data/batches"),
    Fault("white is a little grey", LAB + "data/batches.py", "/ 255.0 - mean", "/ 256.0 - mean", "data/batches"),
    Fault(
        "a share is rounded down",
        LAB + "data/subsets.py",
        "return round(share * n)",
        "return int(share * n)",
        "data/subsets",
    ),
    Fault(
        "a part forgets those before it",
        LAB + "data/subsets.py",
        "data.uniform) <= data.part",
        "data.uniform) == data.part",
        "data/subsets",
    ),
    Fault(
        "a blend is biased nowhere",
        LAB + "data/subsets.py",
        '"blend":\n        base = _share("fraction", data.fraction, len(indices))',
        '"blend":\n        base = len(indices)',
        "data/subsets",
    ),
    Fault(
        "validation images are trained on",
        LAB + "data/subsets.py",
        ".permutation(n)[validation_images:]",
        ".permutation(n)",
        "data/subsets",
    ),
    Fault(
        "noise may be the right class",
        LAB + "data/subsets.py",
        "generator.integers(1, ",
        "generator.integers(0, ",
        "data/subsets",
    ),
    Fault(
        "patches have one sign",
        LAB + "data/patches.py",
        "bernoulli(side), 1.0, -1.0)",
        "bernoulli(side), 1.0, 1.0)",
        "data/patches",
    ),
    Fault(
        "patches are off the middle",
        LAB + "data/patches.py",
        "int(side / 2 - size / 2)",
        "int(side / 2)",
        "data/patches",
    ),
    Fault(
        "every child has the first parent",
        LAB + "config/plan.py",
        "(*places[node.parent], node.epoch)",
        "(places[node.parent][0], 0, node.epoch)",
        "config/spec",
    ),
    Fault(
        "branches train together whatever is compiled for them",
        LAB + "config/plan.py",
        "tuple(stage.shape().items())",
        "()",
        "config/parse",
    ),
    Fault(
        "stages on the way are results",
        LAB + "config/plan.py",
        "final=node not in parents",
        "final=True",
        "config/spec",
    ),
    Fault(
        "`stem` is also `stem2`",
        LAB + "models/parameters.py",
        'startswith(pattern + "/")',
        "startswith(pattern)",
        "models/parameters",
    ),
    Fault(
        "own labels of the test set alone go through",
        LAB + "data/labels.py",
        "if len(strange):",
        "if False:",
        "data/datasets",
    ),
    Fault(
        "classes after a gap stay",
        LAB + "data/labels.py",
        "np.searchsorted(trained, labels).astype",
        "labels.astype",
        "data/datasets",
    ),
)

STUDIES = (
    Fault(
        "the window's edge is inside", LAB + "runner/schedule.py", "e > tail and", "e >= tail and", "runner/schedule"
    ),
    Fault(
        "epochs to keep are no events",
        LAB + "runner/schedule.py",
        "set().union(*points, map(float, group.keep))",
        "set().union(*points)",
        "runner/schedule",
    ),
    Fault(
        "the last images of an epoch are lost",
        LAB + "runner/schedule.py",
        "math.ceil(images /",
        "int(images /",
        "runner/schedule",
    ),
    Fault(
        "runs with other images go on if one has the same",
        LAB + "runner/schedule.py",
        '    if other:\n        raise LabError(\n            f"stage {times',
        '    if len(other) == len(now):\n        raise LabError(\n            f"stage {times',
        "runner/schedule",
    ),
    Fault(
        "arrays of a checkpoint are not checked",
        LAB + "storage/checkpoints.py",
        "if [*_spec(arrays[path]), _crc(arrays[path])] != leaf:",
        "if _spec(arrays[path]) != leaf[:2]:",
        "storage/checkpoints",
    ),
    Fault(
        "a future that was given up stays",
        LAB + "storage/checkpoints.py",
        "if other == number or (other > number and self.keep is not None):",
        "if other == number:",
        "storage/checkpoints",
    ),
    Fault(
        "the checksum of a table is that of its end",
        LAB + "storage/metrics.py",
        'zlib.crc32(data, self._end["crc32"])',
        "zlib.crc32(data)",
        "storage/metrics",
    ),
    Fault(
        "a torn line is an error", LAB + "storage/metrics.py", "elif number < len(lines):", "else:", "storage/metrics"
    ),
    Fault(
        "rows after the mark stay",
        LAB + "storage/metrics.py",
        'os.ftruncate(self._file, self._end["bytes"])\n        os.lseek',
        "os.lseek",
        "storage/metrics",
    ),
    Fault(
        "a checkpoint has no mark",
        LAB + "runner/saver.py",
        '"mark": self.table.mark(), "pools"',
        '"mark": {"bytes": 0, "crc32": 0}, "pools"',
        "runner/resume",
    ),
    Fault(
        "resuming leaves an event out",
        LAB + "runner/saver.py",
        '"next": at.event,',
        '"next": at.event + 1,',
        "runner/resume",
    ),
    Fault(
        "the noise of a reset has no stage",
        LAB + "runner/start.py",
        'batches.key(run.seed, "fresh", run.stage.name)',
        'batches.key(run.seed, "fresh")',
        "runner/stage_loop training/resets",
    ),
    Fault(
        "parents on the devices are those of the first run",
        LAB + "runner/start.py",
        "run.parent[1] if here and run.parent else 0",
        "0",
        "runner/groups",
    ),
    Fault(
        "runs that train on are put where the first ones were",
        LAB + "runner/lineup.py",
        "whole[self.runs] = rows",
        "whole[: len(rows)] = rows",
        "runner/lineup",
    ),
    Fault(
        "runs that are not due are evaluated",
        LAB + "parallel/of_one.py",
        "jnp.where(due, last, first)",
        "jnp.where(due, last, last)",
        "parallel/programs",
    ),
    Fault(
        "moments never go on",
        LAB + "runner/start.py",
        'opt if run.stage.reset.optimiser == "all" else optimizers.counted_like(kept["opt"], opt)',
        "opt",
        "runner/stage_loop",
    ),
    Fault(
        "rows are of the wrong runs where shares are uneven",
        LAB + "parallel/run_axis.py",
        "lambda leaf: leaf[:count], (multihost",
        "lambda leaf: leaf[-count:], (multihost",
        "parallel/run_axis",
    ),
    Fault(
        "cores idle",
        LAB + "parallel/run_axis.py",
        "(devices * share) >= BUSY:",
        "(devices * share) <= BUSY:",
        "parallel/run_axis",
    ),
    Fault(
        "a run that ends early has no last row",
        LAB + "runner/evaluation.py",
        "(np.asarray(done) | np.asarray(now))",
        "np.asarray(now)",
        "runner/evaluation",
    ),
    Fault(
        "the last batch is not counted",
        LAB + "runner/evaluation.py",
        "kind].astype(np.float64) for call in calls), 1)[:, -1]",
        "kind].astype(np.float64) for call in calls), 1)[:, -2]",
        "runner/stage_loop",
    ),
    Fault(
        "a diverged run has an accuracy",
        LAB + "runner/evaluation.py",
        'np.where(finite, values[f"{name}_accuracy"], np.nan)}',
        'values[f"{name}_accuracy"]}',
        "experiment",
    ),
    Fault(
        "the average is never looked at",
        LAB + "runner/evaluation.py",
        "evaluated.replace(params=params, stats=stats)",
        "evaluated",
        "runner/eval_sets",
    ),
    Fault(
        "the gap has the other sign",
        LAB + "storage/results.py",
        "[control[seed] - treatment[seed] for",
        "[treatment[seed] - control[seed] for",
        "storage/results",
    ),
    Fault("an interval has one tail", LAB + "storage/results.py", "(1 + level) / 2)", "level)", "storage/results"),
    Fault(
        "the metric takes an epoch too many", LAB + "storage/results.py", "(1 - 1e-9)", "(1 + 1e-9)", "storage/results"
    ),
    Fault(
        "failed runs count",
        LAB + "storage/results.py",
        'run["test_accuracy"] for run in runs if run["status"] == "finished"}',
        'run["test_accuracy"] for run in runs}',
        "storage/results",
    ),
    Fault("an unknown key is taken", LAB + "config/rules.py", "if key not in fields:", "if False:", "config/parse"),
    Fault(
        "an open end of an interval is closed",
        LAB + "config/rules.py",
        '(interval[0] == "[" and value == low)',
        "value == low",
        "config/parse",
    ),
    Fault("True is a number", LAB + "config/rules.py", "and not isinstance(value, bool)  #", "#", "config/parse"),
    Fault(
        "nohup keeps nothing",
        LAB + "runner/signals.py",
        "if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:",
        "if True:",
        "runner/signals",
    ),
    Fault(
        "other random numbers go on",
        LAB + "storage/environment.py",
        "    if other:\n",
        "    if len(other) > 1:\n",
        "storage/conditions",
    ),
    Fault(
        "other images of the same name go on",
        LAB + "storage/environment.py",
        'old["dataset"]["sha256"] != dataset.sha256',
        'old["dataset"]["name"] != dataset.name',
        "experiment",
    ),
    Fault("a lock is shared", LAB + "storage/locks.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH", "storage/locks"),
)

NETWORKS = (
    Fault(
        "the stem has no stride",
        LAB + "models/resnet.py",
        '(7, 2) if self.stem == "imagenet"',
        '(7, 1) if self.stem == "imagenet"',
        "models/resnet",
    ),
    Fault("a block subtracts", LAB + "models/resnet.py", "(x + y), {", "(x - y), {", "models/resnet"),
    Fault(
        "layer norm is over channels",
        LAB + "models/layers.py",
        "nn.GroupNorm(1, epsilon",
        "nn.LayerNorm(epsilon",
        "models/resnet",
    ),
    Fault("running statistics are slow", LAB + "models/layers.py", "momentum=0.9", "momentum=0.99", "models/resnet"),
    Fault(
        "kernels begin too small",
        LAB + "models/layers.py",
        '"fan_out", "normal"',
        '"fan_in", "normal"',
        "models/resnet",
    ),
    Fault(
        "a wide shortcut skips the norm",
        LAB + "models/wide_resnet.py",
        'name="conv_proj")(before)',
        'name="conv_proj")(x)',
        "models/resnet",
    ),
    Fault(
        "the gradient of the images has the kernel unturned",
        LAB + "models/convolution.py",
        "kernel[::-1, ::-1].swapaxes(2, 3)",
        "kernel.swapaxes(2, 3)",
        "models/convolution",
    ),
    Fault(
        "folded columns are in reverse",
        LAB + "models/convolution.py",
        "(t, fold - 1 - t)",
        "(fold - 1 - t, t)",
        "models/convolution",
    ),
    Fault(
        "the last pixel of a window has the gradient",
        LAB + "models/pooling.py",
        "before *= values != y",
        "pass",
        "models/pooling",
    ),
)

AROUND = (
    Fault(
        "the last job is lost",
        LAUNCH + "planner.py",
        "for i in range(count + 1)]",
        "for i in range(count)]",
        "launch/planner",
    ),
    Fault(
        "a job that just fits is split", LAUNCH + "planner.py", "or need <= limit", "or need < limit", "launch/planner"
    ),
    Fault(
        "a study that was begun is only planned",
        LAUNCH + "begun.py",
        "part.rename(target)",
        "part.rename(target.with_suffix('.done'))",
        "launch/begun",
    ),
    Fault(
        "a begun study is copied again", LAUNCH + "begun.py", "if target.exists():", "if part.exists():", "launch/begun"
    ),
    Fault("a job has a try too many", LAUNCH + "attempts.py", "tries >= most", "tries > most", "launch/job"),
    Fault(
        "a path with a space breaks the script",
        LAUNCH + "sbatch.py",
        "cd {shlex.quote(str(home))} ||",
        "cd {home} ||",
        "launch/slurm",
    ),
    Fault("a stopped job is not queued again", LAUNCH + "sbatch.py", "$code -eq 75", "$code -eq 76", "launch/slurm"),
    Fault("arrays overlap", LAUNCH + "sbatch.py", "position // limit * limit,", "position // limit,", "launch/slurm"),
    Fault(
        "one tail makes a claim",
        ANALYSIS + "effects/stats.py",
        'low > 0, high < 0\n        case "below"',
        'high > 0, low < 0\n        case "below"',
        "analysis/stats",
    ),
    Fault(
        "an equivalence takes 95 %", ANALYSIS + "effects/stats.py", "1 - 2 * error if", "1 - error if", "analysis/stats"
    ),
    Fault(
        "Holm never steps down",
        ANALYSIS + "effects/stats.py",
        "remain * tests[i][1]",
        "k * tests[i][1]",
        "analysis/stats",
    ),
    Fault(
        "a family is what is at hand",
        ANALYSIS + "effects/judgement.py",
        "k = len(first) + len(absent)",
        "k = len(first)",
        "analysis/verify",
    ),
    Fault(
        "the last of equals is the best",
        ANALYSIS + "effects/derived.py",
        "if judged[seed] > best",
        "if judged[seed] >= best",
        "analysis/contrasts",
    ),
    Fault(
        "a placebo touches the decay",
        ANALYSIS + "effects/transitions.py",
        "+ reach + (k if stage else 0)",
        "+ reach",
        "analysis/you2019",
    ),
    Fault(
        "a fall is a rise",
        ANALYSIS + "effects/transitions.py",
        "after - before if rises",
        "before - after if rises",
        "analysis/you2019",
    ),
    Fault(
        "a slope hangs on where numbers begin",
        ANALYSIS + "effects/contrasts.py",
        "(per * (x - centre) / square, member)",
        "(per * x / square, member)",
        "analysis/contrasts",
    ),
)

FAULTS = (*TRAINING, *DRAWING, *STUDIES, *NETWORKS, *AROUND)
