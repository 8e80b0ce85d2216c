"""The exit statuses of all launchers."""

FINISHED = 0
FAILED = 1
AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on from here
