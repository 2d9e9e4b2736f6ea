"""Predicted x0: how it follows from a scheduler's step, how a sampler is watched, and the file that
keeps it."""
