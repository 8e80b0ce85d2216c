"""The faults: what a tired programmer might write, one in a place."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mistake in one place.

    name: what is wrong then.  file: where, from the root of the repository.
    old, new: the text there, which occurs once in the file, and what it becomes.
    tests: words that pytest is given, without `tests/test_` and `.py` in front and behind a file's name.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


LAB, ANALYSIS, LAUNCH = "plasticity_jax/", "analysis/", "launch/"

TRAINING = (
    Fault("a reset subtracts", LAB + "resets.py", "kept + perturb * new", "kept - perturb * new", "resets"),
    Fault(
        "statistics are fresh where they should be kept",
        LAB + "resets.py",
        "jnp.where(is_fresh, new, old)",
        "jnp.where(is_fresh, old, new)",
        "resets",
    ),
    Fault(
        "moments of other modules are forgotten",
        LAB + "resets.py",
        '(reset.optimiser == "modules" and inside)',
        '(reset.optimiser == "modules" and not inside)',
        "resets",
    ),
    Fault("Adam's steps count from 1", LAB + "optim.py", "1 - b**n", "1 - b ** (n + 1)", "optim"),
    Fault("the cosine rises", LAB + "optim.py", "1.0 + jnp.cos(", "1.0 - jnp.cos(", "optim"),
    Fault("a milestone comes a step late", LAB + "optim.py", "done >= h.milestones", "done > h.milestones", "optim"),
    Fault("warm-up never ends", LAB + "optim.py", "jnp.maximum(h.warmup, 1e-9), 1.0)", "1.0, 1.0)", "optim"),
    Fault("RMSprop's eps is in the root", LAB + "optim.py", "eps_in_sqrt=False", "eps_in_sqrt=True", "optim"),
    Fault("AdamW decays twice", LAB + "optim.py", 'if optim.name == "adamw" else', "if False else", "optim"),
    Fault(
        "window looks for a rise",
        LAB + "detectors.py",
        "old.mean() - new.mean()",
        "new.mean() - old.mean()",
        "detectors",
    ),
    Fault("plateau loses patience early", LAB + "detectors.py", "bad > patience", "bad >= patience", "detectors"),
    Fault(
        "sasa's interval is too narrow",
        LAB + "detectors.py",
        "student(1 - significance / 2,",
        "student(1 - significance,",
        "detectors",
    ),
    Fault(
        "a stage that ends early skips too much",
        LAB + "autodecay.py",
        "bounds[stage] - time",
        "bounds[stage] - step",
        "autodecay",
    ),
    Fault("an epoch's sums go on", LAB + "train.py", "jnp.where(epoch_ends, 0.0, tally)", "tally", "train"),
    Fault("an epoch never ends", LAB + "train.py", "position + 1 == task", "position == task", "train"),
    Fault(
        "accuracy is compared in another unit",
        LAB + "train.py",
        "last[1] >= 100.0 * task",
        "last[1] >= task",
        "train",
    ),
    Fault("a diverged run goes on", LAB + "train.py", "reached | failed |", "reached |", "train"),
    Fault(
        "the average follows too fast",
        LAB + "train.py",
        "task.ema * old + (1 - task.ema) * now",
        "(1 - task.ema) * old + task.ema * now",
        "train",
    ),
    Fault(
        "moments of frozen modules move",
        LAB + "train.py",
        "_hold(of_parameters(opt, frozen), state.opt, opt)",
        "_hold(of_parameters(opt, frozen), opt, opt)",
        "train",
    ),
    Fault("the schedule is a step ahead", LAB + "train.py", "time / task.steps)", "(time + 1) / task.steps)", "train"),
    Fault(
        "the last batch of an evaluation has an image too many",
        LAB + "train.py",
        "mask = slots < source.size",
        "mask = slots <= source.size",
        "train",
    ),
    Fault(
        "evaluation takes the batch's statistics",
        LAB + "train.py",
        "image, train=False)[0], source.classes",
        "image, train=True)[0], source.classes",
        "train",
    ),
    Fault(
        "gradients of micro-batches add up",
        LAB + "gradient.py",
        "lambda x: x / count, (found, stats)",
        "lambda x: x, (found, stats)",
        "gradient",
    ),
    Fault(
        "statistics of a frozen network move",
        LAB + "gradient.py",
        "stats if all(moves) else state.stats",
        "stats",
        "gradient",
    ),
    Fault(
        "classes of others take part",
        LAB + "gradient.py",
        "jnp.where(classes, logits, OUT)",
        "jnp.where(classes, logits, 0.0)",
        "gradient",
    ),
)

DRAWING = (
    Fault("keys have no name", LAB + "sampling.py", "zlib.crc32(name.encode())", 'zlib.crc32(b"")', "sampling"),
    Fault(
        "the key of a stage has no stage",
        LAB + "timetable.py",
        'sampling.key(run.seed, "stage", run.stage.name)',
        'sampling.key(run.seed, "stage")',
        "timetable",
    ),
    Fault(
        "draws have no step", LAB + "sampling.py", "split(jax.random.fold_in(k, step), 3)", "split(k, 3)", "sampling"
    ),
    Fault(
        "all epochs have one order",
        LAB + "sampling.py",
        "uniform(jax.random.fold_in(k, epoch), slots.shape)",
        "uniform(k, slots.shape)",
        "sampling",
    ),
    Fault(
        "an order has a slot of the padding",
        LAB + "sampling.py",
        "jnp.where(slots < source.size, draws",
        "jnp.where(slots <= source.size, draws",
        "sampling",
    ),
    Fault("blending ends early", LAB + "sampling.py", "(50.0 * step / steps)", "(500.0 * step / steps)", "sampling"),
    Fault("images are upside down", LAB + "sampling.py", "cropped[:, :, ::-1]", "cropped[:, ::-1]", "sampling"),
    Fault("white is a little grey", LAB + "sampling.py", "/ 255.0 - mean", "/ 256.0 - mean", "sampling"),
    Fault("a share is rounded down", LAB + "pools.py", "return round(share * n)", "return int(share * n)", "pools"),
    Fault(
        "a part forgets those before it",
        LAB + "pools.py",
        "data.uniform) <= data.part",
        "data.uniform) == data.part",
        "pools",
    ),
    Fault(
        "a blend is biased nowhere",
        LAB + "pools.py",
        '"blend":\n        base = _share("fraction", data.fraction, len(indices))',
        '"blend":\n        base = len(indices)',
        "pools",
    ),
    Fault(
        "validation images are trained on",
        LAB + "pools.py",
        ".permutation(n)[validation_images:]",
        ".permutation(n)",
        "pools",
    ),
    Fault(
        "noise may be the right class", LAB + "pools.py", "generator.integers(1, ", "generator.integers(0, ", "pools"
    ),
    Fault(
        "patches have one sign",
        LAB + "patches.py",
        "bernoulli(side), 1.0, -1.0)",
        "bernoulli(side), 1.0, 1.0)",
        "patches",
    ),
    Fault("patches are off the middle", LAB + "patches.py", "int(side / 2 - size / 2)", "int(side / 2)", "patches"),
    Fault("every child has the first parent", LAB + "legs.py", "rows[node.parent], node", "0, node", "stages"),
    Fault("stages on the way are results", LAB + "legs.py", "final=node not in parents", "final=True", "stages"),
    Fault("`stem` is also `stem2`", LAB + "trees.py", 'startswith(pattern + "/")', "startswith(pattern)", "trees"),
    Fault(
        "own labels of the test set alone go through", LAB + "labels.py", "if len(strange):", "if False:", "datasets"
    ),
    Fault(
        "classes behind a gap stay",
        LAB + "labels.py",
        "np.searchsorted(known, labels).astype",
        "labels.astype",
        "datasets",
    ),
)

STUDIES = (
    Fault("the window's edge is inside", LAB + "timetable.py", "e > tail and", "e >= tail and", "timetable"),
    Fault(
        "epochs to keep are no events",
        LAB + "timetable.py",
        "set().union(*points, map(float, leg.keep))",
        "set().union(*points)",
        "timetable",
    ),
    Fault(
        "the last images of an epoch are lost", LAB + "timetable.py", "math.ceil(images /", "int(images /", "timetable"
    ),
    Fault(
        "runs with other images go on if one has the same",
        LAB + "timetable.py",
        '    if other:\n        raise LabError(\n            f"stage {times',
        '    if len(other) == len(now):\n        raise LabError(\n            f"stage {times',
        "timetable",
    ),
    Fault(
        "arrays of a checkpoint are not checked",
        LAB + "checkpoint.py",
        "if [*_spec(arrays[path]), _crc(arrays[path])] != leaf:",
        "if _spec(arrays[path]) != leaf[:2]:",
        "checkpoint",
    ),
    Fault(
        "a future that was given up stays",
        LAB + "checkpoint.py",
        "if other == number or (other > number and self.keep is not None):",
        "if other == number:",
        "checkpoint",
    ),
    Fault(
        "the checksum of a table is that of its end",
        LAB + "records.py",
        'zlib.crc32(data, self._end["crc32"])',
        "zlib.crc32(data)",
        "records",
    ),
    Fault("a torn line is an error", LAB + "records.py", "elif number < len(lines):", "else:", "records"),
    Fault(
        "rows behind the mark stay",
        LAB + "records.py",
        'os.ftruncate(self._file, self._end["bytes"])\n        os.lseek',
        "os.lseek",
        "records",
    ),
    Fault(
        "a checkpoint has no mark",
        LAB + "walk.py",
        '"mark": self.table.mark(), "pools"',
        '"mark": {"bytes": 0, "crc32": 0}, "pools"',
        "resume",
    ),
    Fault("resuming leaves an event out", LAB + "walk.py", '"next": at.event,', '"next": at.event + 1,', "resume"),
    Fault(
        "the noise of a reset has no stage",
        LAB + "walk.py",
        'sampling.key(run.seed, "fresh", leg.name)',
        'sampling.key(run.seed, "fresh")',
        "walk resets",
    ),
    Fault(
        "moments never go on",
        LAB + "walk.py",
        'opt if run.stage.reset.optimiser == "all" else kept["opt"]',
        "opt",
        "walk",
    ),
    Fault(
        "rows are of the wrong runs where shares are uneven",
        LAB + "runs.py",
        "lambda leaf: leaf[:count], share(",
        "lambda leaf: leaf[-count:], share(",
        "runs",
    ),
    Fault("cores idle", LAB + "runs.py", "and busy >= BUSY else", "and busy <= BUSY else", "runs"),
    Fault(
        "a run that ends early has no last row",
        LAB + "measure.py",
        "not (done[i] or epoch in times.points[i])",
        "epoch not in times.points[i]",
        "measure",
    ),
    Fault("the last batch is not counted", LAB + "measure.py", "functools.reduce(_add, waiting, sums)", "sums", "walk"),
    Fault(
        "a diverged run has an accuracy",
        LAB + "measure.py",
        'np.where(finite, values[f"{name}_accuracy"], np.nan)}',
        'values[f"{name}_accuracy"]}',
        "experiment",
    ),
    Fault(
        "the average is never looked at",
        LAB + "measure.py",
        "seen.replace(params=params, stats=stats)",
        "seen",
        "scored",
    ),
    Fault(
        "the gap has the other sign",
        LAB + "results.py",
        "[control[seed] - treatment[seed] for",
        "[treatment[seed] - control[seed] for",
        "results",
    ),
    Fault("an interval has one tail", LAB + "results.py", "(1 + level) / 2)", "level)", "results"),
    Fault("the metric takes an epoch too many", LAB + "results.py", "(1 - 1e-9)", "(1 + 1e-9)", "results"),
    Fault(
        "failed runs count",
        LAB + "results.py",
        'run["test_accuracy"] for run in runs if run["status"] == "finished"}',
        'run["test_accuracy"] for run in runs}',
        "results",
    ),
    Fault("an unknown key is taken", LAB + "checks.py", "if key not in fields:", "if False:", "config"),
    Fault(
        "an open end of an interval is closed",
        LAB + "checks.py",
        '(interval[0] == "[" and value == low)',
        "value == low",
        "config",
    ),
    Fault("True is a number", LAB + "checks.py", "and not isinstance(value, bool)  #", "#", "config"),
    Fault(
        "nohup keeps nothing",
        LAB + "signals.py",
        "if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:",
        "if True:",
        "signals",
    ),
    Fault(
        "other random numbers go on",
        LAB + "environment.py",
        "    if other:\n",
        "    if len(other) > 1:\n",
        "conditions",
    ),
    Fault(
        "other images of the same name go on",
        LAB + "environment.py",
        'old["dataset"]["sha256"] != dataset.sha256',
        'old["dataset"]["name"] != dataset.name',
        "experiment",
    ),
    Fault("a lock is shared", LAB + "locks.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH", "locks"),
)

NETWORKS = (
    Fault(
        "the stem has no stride",
        LAB + "models.py",
        '(7, 2) if self.stem == "imagenet"',
        '(7, 1) if self.stem == "imagenet"',
        "models",
    ),
    Fault("a block subtracts", LAB + "models.py", "nn.relu(x + y), inner", "nn.relu(x - y), inner", "models"),
    Fault(
        "layer norm is over channels", LAB + "layers.py", "nn.GroupNorm(1, epsilon", "nn.LayerNorm(epsilon", "models"
    ),
    Fault("running statistics are slow", LAB + "layers.py", "momentum=0.9", "momentum=0.99", "models"),
    Fault("kernels begin too small", LAB + "layers.py", '"fan_out", "normal"', '"fan_in", "normal"', "models"),
    Fault(
        "a wide shortcut skips the norm",
        LAB + "wide_resnet.py",
        'name="conv_proj")(before)',
        'name="conv_proj")(x)',
        "models",
    ),
    Fault(
        "the gradient of the images has the kernel unturned",
        LAB + "convolution.py",
        "kernel[::-1, ::-1].swapaxes(2, 3)",
        "kernel.swapaxes(2, 3)",
        "convolution",
    ),
    Fault(
        "folded columns are in reverse", LAB + "convolution.py", "(t, fold - 1 - t)", "(fold - 1 - t, t)", "convolution"
    ),
    Fault("all equal pixels have the gradient", LAB + "pooling.py", "free &= ~wins", "pass", "pooling"),
)

AROUND = (
    Fault("the last job is lost", LAUNCH + "plan.py", "for i in range(count + 1)]", "for i in range(count)]", "plan"),
    Fault("a job that just fits is split", LAUNCH + "plan.py", "or need <= there", "or need < there", "plan"),
    Fault("a job has a try too many", LAUNCH + "attempts.py", "tries >= most", "tries > most", "job"),
    Fault(
        "a path with a space breaks the script",
        LAUNCH + "script.py",
        "cd {shlex.quote(str(home))} ||",
        "cd {home} ||",
        "slurm",
    ),
    Fault("a stopped job is not queued again", LAUNCH + "script.py", "$code -eq 75", "$code -eq 76", "slurm"),
    Fault("arrays overlap", LAUNCH + "script.py", "position // limit * limit,", "position // limit,", "slurm"),
    Fault(
        "one tail makes a claim",
        ANALYSIS + "rule.py",
        'low > 0, high < 0\n        case "below"',
        'high > 0, low < 0\n        case "below"',
        "rule",
    ),
    Fault("an equivalence takes 95 %", ANALYSIS + "rule.py", "1 - 2 * error if", "1 - error if", "rule"),
    Fault("Holm never steps down", ANALYSIS + "rule.py", "remain * tests[i][1]", "k * tests[i][1]", "rule"),
    Fault(
        "a family is what is at hand",
        ANALYSIS + "judged.py",
        "k = len(first) + len(absent)",
        "k = len(first)",
        "claims",
    ),
    Fault(
        "the last of equals is the best",
        ANALYSIS + "derived.py",
        "if judged[seed] > found",
        "if judged[seed] >= found",
        "contrasts",
    ),
    Fault("a placebo touches the decay", ANALYSIS + "jumps.py", "+ reach + (k if stage else 0)", "+ reach", "you"),
    Fault("a fall is a rise", ANALYSIS + "jumps.py", "after - before if rises", "before - after if rises", "you"),
    Fault(
        "a slope hangs on where numbers begin",
        ANALYSIS + "contrasts.py",
        "(per * (x - centre) / square, each)",
        "(per * x / square, each)",
        "contrasts",
    ),
)

FAULTS = (*TRAINING, *DRAWING, *STUDIES, *NETWORKS, *AROUND)
