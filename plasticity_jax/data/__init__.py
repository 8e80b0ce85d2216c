"""Data sets, the images that a stage trains on, and their batches."""
