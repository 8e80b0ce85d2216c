"""The flags of the commands that plan a sweep."""

from absl import flags

from plasticity_jax.runner import commandline

flags.adopt_module_key_flags(commandline)
CONFIG, WORKDIR, DRY_RUN = commandline.CONFIG, commandline.WORKDIR, commandline.DRY_RUN
COMPILE_FOR = commandline.COMPILE_FOR
MEMORY_GB = flags.DEFINE_float("memory_gb", None, "Memory of a job's device; default: what is free on this one.", 0.0)
HOURS = flags.DEFINE_float("hours", None, "Longest expected time of a job.", 0.0)
RUNS_PER_JOB = flags.DEFINE_integer("runs_per_job", None, "Most runs of a job.", 1)
IMAGES_PER_SECOND = flags.DEFINE_float(
    "images_per_second", None, "What the machine that will train does, instead of timing this one.", 0.0
)
