"""The columns of the table that `analysis.load` returns, and what it and others put beside them."""

KEYS = ("pack", "run", "seed", "branch")
MEASURED = ("stage", "status", "epoch", "step", "metric", "value")
ADDED = ("directory", "study", "hparams", "label")
COLUMNS = frozenset((*KEYS, *MEASURED, *ADDED))  # an axis of a grid is a column too, and has another name
