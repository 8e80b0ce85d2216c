"""Faults injected at random into real processes that train a tiny study, and whether anything was lost by them.

python -m tests.faults [--count N] [--seed S] [--kinds a,b] [--only K] [--json FILE] [--keep DIR]
"""
