"""The flags of the commands that plan a sweep."""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "A study's config file, or one of several: FILE or FILE:ARG.")
WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the sweep; the same one again goes on with it.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Show the jobs, and write nothing.")
