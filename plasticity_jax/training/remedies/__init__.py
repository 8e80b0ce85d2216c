"""Remedies against the loss of plasticity: what is done to the loss, after steps, and at the start of a stage."""
