"""Experiments: every file has a `get_config`, and a docstring with protocol, claim, commands and results."""
