"""What `import lvd` offers, and that it costs nothing before it is asked for."""

import importlib.metadata
import subprocess
import sys

import pytest

import lvd


def test_every_public_name_is_there():
    assert set(lvd.__all__) == {
        "ConfidenceRule",
        "Guard",
        "GuardResult",
        "InputError",
        "LikelihoodRatioRule",
        "UnsafeVideoError",
        "VoteRule",
        "X0Recorder",
        "__version__",
        "predicted_x0",
        "record",
        "watch_steps",
    }
    for name in lvd.__all__:
        assert getattr(lvd, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'guess'"):
        lvd.guess  # noqa: B018


@pytest.mark.parametrize("installed", ["1.2.3", None])
def test_version(monkeypatch, installed):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert lvd.__version__ == (installed or "0+unknown")


def test_importing_lvd_loads_no_torch():
    code = (
        "import sys, lvd; assert lvd.InputError and lvd.__version__; "
        "assert 'torch' not in sys.modules; assert lvd.Guard and 'torch' in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr


def test_bad_input_is_the_public_error():
    with pytest.raises(lvd.InputError):
        lvd.Guard("nowhere")
