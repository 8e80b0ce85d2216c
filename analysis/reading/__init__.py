"""Reads measurements from working directories and sweeps."""
