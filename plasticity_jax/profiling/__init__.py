"""Measures what a study needs on a machine: memory, time, and the fastest strategy."""
