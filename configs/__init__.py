"""Experiments: every file has a `get_config`, and says in its docstring how to run it and what comes out."""
