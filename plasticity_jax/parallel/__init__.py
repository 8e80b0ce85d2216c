"""Trains many runs in one compiled program, on all devices of all processes."""
