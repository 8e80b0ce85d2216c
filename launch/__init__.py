"""Sweeps: planned as jobs (`sweep`), trained here (`local`) or on clusters (`slurm`, `xm`), shown by `status`.

Every launcher starts `job`, which trains one job.  Files of a sweep:

SWEEP/sweep.json                 the jobs, in an order that only grows
SWEEP/STUDY/config.json          a whole study, resolved
SWEEP/STUDY/planned.json         the seeds it was planned with at first, whatever it has grown to since
SWEEP/STUDY/jobs/JOB/            the working directory of a job, and its attempts.json
"""
