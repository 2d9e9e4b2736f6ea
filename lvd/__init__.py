"""Latent Variable Defense: detect unsafe videos from the predicted x0 of the denoising steps."""

_HOME = {
    "Guard": "lvd.guard.guard",
    "GuardResult": "lvd.guard.session",
    "InputError": "lvd.errors",
    "UnsafeVideoError": "lvd.guard.session",
    "X0Recorder": "lvd.x0.watch",
    "predicted_x0": "lvd.x0.schedulers",
    "record": "lvd.x0.record",
    "watch_steps": "lvd.x0.watch",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    """Loaded when first asked for: commands that need none of these start without torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'lvd' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
