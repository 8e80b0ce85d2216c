"""Training ONE run: its state, its step, its optimiser, its reset."""
