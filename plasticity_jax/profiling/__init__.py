"""What a study needs of a machine: memory, time, and the fastest strategy."""
