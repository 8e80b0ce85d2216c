"""Effects of studies: what is measured of each seed, intervals, and verdicts on claims."""
