"""Predicted x0: its formula for each scheduler, how a sampler is watched, and the file of it."""
