"""Latent Variable Defense: detect unsafe videos from the predicted x0 of the denoising steps.

The method of "Towards Understanding Unsafe Video Generation" (arXiv 2407.12581).
"""

from importlib import import_module

# Public name → the module that defines it.
_HOME = {
    "ConfidenceRule": "lvd.rules.confidence",
    "Guard": "lvd.guard.guard",
    "GuardResult": "lvd.guard.result",
    "InputError": "lvd.errors",
    "LikelihoodRatioRule": "lvd.rules.confidence",
    "UnsafeVideoError": "lvd.guard.result",
    "VoteRule": "lvd.rules.vote",
    "X0Recorder": "lvd.x0.recorder",
    "predicted_x0": "lvd.x0.predicted",
    "record": "lvd.x0.record",
    "watch_steps": "lvd.x0.watch",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name):
    """Load a public name when it is first used: commands that need none start without torch."""
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'lvd' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def _version():
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lvd")
    except PackageNotFoundError:  # used from its folder, without `pip install`
        return "0+unknown"
