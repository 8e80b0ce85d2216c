"""Studies read back from JSON that anybody may have written: the other half of `parse.describe`.

Types, ranges and structure are checked, and so are the names that become directories: whatever comes back is a study
whose files lie where they should.  What only holds between its values is for `parse` to say, where they come from.
"""

from typing import Any

from plasticity_jax.config import legacy, names, rules, spec
from plasticity_jax.errors import ConfigError


def restore_study(described: Any, where: str = "config.json") -> spec.Study:
    """The study that `parse.describe` wrote down, now or in an earlier version; `where` begins every error.

    Raises:
      ConfigError: it is none, in one line.
    """
    study = rules.record(spec.Study, None)(legacy.study(described), where)
    if not study.packs:
        raise ConfigError(f"{where}: a study has packs")
    taken = set()
    for i, pack in enumerate(study.packs):
        at = f"{where}.packs[{i}]"
        names.check(pack.name, f"{at}.name", commas=True)
        if pack.name in taken or not pack.plans:
            raise ConfigError(f"{at}: two packs of one name, or one without plans")
        taken.add(pack.name)
        for hparams, plan in pack.plans:
            for key, _ in hparams:
                names.check_key(key, at)
            for stage in plan:
                names.check(stage.name, f"{at}: stage")
                names.check(stage.branch, f"{at}: branch of stage {stage.name}")
            if not plan or len({(stage.name, stage.branch) for stage in plan}) < len(plan):
                raise ConfigError(f"{at}: a plan has stages, and no branch of one twice")
    return study
