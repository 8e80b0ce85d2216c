"""Names of the columns in the table of results that `analysis.load` returns; a grid axis must not reuse one."""

KEYS = ("pack", "run", "seed", "branch")
MEASURED = ("stage", "status", "epoch", "step", "metric", "value")
ADDED = ("directory", "study", "hparams", "label")
COLUMNS = frozenset((*KEYS, *MEASURED, *ADDED))  # each axis of a grid adds one column, under another name
