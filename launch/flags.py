"""The flags of the commands that plan a sweep."""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "A study's config file, or one of several: FILE or FILE:ARG.")
WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the sweep; the same one again goes on with it.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Show the jobs, and write nothing.")
MEMORY_GB = flags.DEFINE_float("memory_gb", None, "Memory of a job's device; default: what is free on this one.", 0.0)
HOURS = flags.DEFINE_float("hours", None, "Longest expected time of a job.", 0.0)
RUNS_PER_JOB = flags.DEFINE_integer("runs_per_job", None, "Most runs of a job.", 1)
IMAGES_PER_SECOND = flags.DEFINE_float(
    "images_per_second", None, "What the machine that will train does, instead of timing this one.", 0.0
)
