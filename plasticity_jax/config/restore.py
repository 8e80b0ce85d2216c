"""Restores a study from the JSON that `parse.describe` wrote; the file is not trusted.

Types, ranges, structure and the names that become directories are checked, so no path leads out of the working
directory.  Rules between fields are checked by `parse` alone, when a study is made.
"""

from typing import Any

from plasticity_jax.config import legacy, names, rules, spec
from plasticity_jax.errors import ConfigError


def restore_study(described: Any, where: str = "config.json") -> spec.Study:
    """Returns the study that `parse.describe` wrote, now or in an earlier version; errors begin with `where`.

    Raises:
      ConfigError: it is not a valid study.
    """
    study = rules.record(spec.Study, None)(legacy.study(described), where)
    if not study.packs:
        raise ConfigError(f"{where}: the study has no packs")
    taken = set()
    for i, pack in enumerate(study.packs):
        at = f"{where}.packs[{i}]"
        names.check(pack.name, f"{at}.name", commas=True)
        if pack.name in taken or not pack.plans:
            raise ConfigError(f"{at}: the pack has no plans, or the name of another pack")
        taken.add(pack.name)
        for hparams, plan in pack.plans:
            for key, _ in hparams:
                names.check_key(key, at)
            for stage in plan:
                names.check(stage.name, f"{at}: stage")
                names.check(stage.branch, f"{at}: branch of stage {stage.name}")
            if not plan or len({(stage.name, stage.branch) for stage in plan}) < len(plan):
                raise ConfigError(f"{at}: a plan has no stages, or a branch twice")
    return study
