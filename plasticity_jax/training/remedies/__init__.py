"""Remedies against the loss of plasticity: terms of the loss, and actions after steps and at the start of a stage."""
