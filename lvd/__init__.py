"""Latent Variable Defense: detect unsafe videos from the predicted x0 of the denoising steps."""
