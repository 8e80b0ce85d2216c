"""Deliberate faults, put one by one into a copy of the repository; the tests have to catch each of them.

    python -m tests.mutants [--only NAME] [--json FILE]

It tells of the tests whether they can still find faults, after they were made quicker or moved.  To add a fault, write
a `Fault` into `tests/mutants/faults.py`: a small, plausible mistake in one place, and the few test files that should
catch it soonest.  If it survives, the tests lack something: write the test, and leave the fault as it is.
"""
