"""The loop over the stages of a pack: training, evaluation, progress and stops."""
