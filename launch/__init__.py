"""Sweeps: planned as jobs (`sweep`), trained here (`local`) or elsewhere, one at a time by `job`, watched by `status`.

SWEEP/sweep.json                 the jobs, in an order that only grows
SWEEP/STUDY/config.json          a whole study, resolved
SWEEP/STUDY/jobs/JOB/            the working directory of a job, and its attempts.json
"""
