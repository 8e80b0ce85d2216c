"""Data sets, which of their images a stage sees, and in which batches."""
