"""Videos of a diffusers pipeline under the guard."""

import importlib
import inspect

import numpy as np
import torch

from lvd.errors import InputError, shorten, typed, words_of
from lvd.guard.file import is_guard_file
from lvd.guard.guard import Guard
from lvd.guard.guidance import SAME
from lvd.utils.schema import checked
from lvd_server.outcome import first_stopped
from lvd_server.request import WHERE, VideoRequest

FIELDS = [field for field in VideoRequest.model_fields if field not in ("prompt", "seed")]
FPS = 8


class PipelineBackend:
    """Any diffusers video pipeline that makes a video of a prompt alone.

    Args:
        name: "module:function" of a function without arguments that returns the pipeline.
        guard: path of the detectors, or of a guard.yaml.
        device: torch.device of the detectors. The pipeline lies where the function puts it.
        layout: of the pipeline's latents, as in Guard.watch.
        given: {field of a request: value} for what a client does not say.

    Attributes:
        defaults: {field of a request: value} of those that the pipeline takes; None leaves it to
            the pipeline.
        fps: frames a second.

    Raises:
        InputError: there is no such function, or no such field.
    """

    def __init__(self, name, guard, device, layout=None, given=None):
        for field in given or {}:
            if field not in FIELDS:
                raise InputError(f"{shorten(field)}=...: one of {', '.join(FIELDS)} is needed")
        checked(VideoRequest, {"prompt": "-", **(given or {})}, "key=value")
        self.fps = FPS
        self.defaults = {}
        self._given = given or {}
        self._name = name
        self._build = find_function(name)
        self._path = guard
        self._device = device
        self._layout = layout
        self._pipe = None

    def describe(self):
        """Return what samples, in words."""
        return f"the diffusers pipeline of {self._name}"

    def read_guard(self):
        """Load the guard.

        Returns:
            (lvd.Guard, None).
        """
        settings = {"device": self._device, "asked_by": "--guard ", "guidance": SAME}
        make = Guard.from_file if is_guard_file(self._path) else Guard
        return make(self._path, **settings), None

    def load(self):
        """Build the pipeline.

        Raises:
            InputError: the function fails, or its pipeline cannot be served.
        """
        try:
            pipe = self._build()
        except Exception as error:
            kind = type(error).__name__
            raise InputError(
                f"--pipeline {self._name}: it failed with {kind}: {words_of(error, 160)}"
            ) from error
        self.defaults = _arguments(pipe, f"--pipeline {self._name}")
        for field, value in self._given.items():
            if field not in self.defaults:
                raise InputError(f"{field}=...: a {type(pipe).__name__} does not take it")
            self.defaults[field] = value
        if callable(getattr(pipe, "set_progress_bar_config", None)):
            pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe

    def prepare(self, guard, _):
        """Return the pipeline under the guard: an object that is called as the pipeline is."""
        return guard.protect(self._pipe, layout=self._layout)

    def check(self, safe, request):
        """Refuse a request that could not be written as a video."""
        for field in ("height", "width"):
            if (getattr(request, field) or 0) % 2:
                raise InputError(f"{WHERE}: {field}: an even number is needed")

    def make(self, safe, request):
        """Sample a video.

        Returns:
            (uint8 frames [F, H, W, 3], GuardResult).
        """
        arguments = {field: getattr(request, field) for field in ("prompt", *FIELDS)}
        arguments = {key: value for key, value in arguments.items() if value is not None}
        generator = torch.Generator("cpu").manual_seed(request.seed)
        output = safe(**arguments, generator=generator, output_type="np")
        (video,) = output.frames
        return to_bytes(np.asarray(video)), first_stopped(output.lvd)


def to_bytes(video):
    """Turn a video, float [F, H, W, 3] in [0, 1], into bytes.

    Raises:
        RuntimeError: it holds anything else; nothing is handed out then.
    """
    if video.ndim != 4 or video.shape[-1] != 3 or not np.isfinite(video).all():
        raise RuntimeError(f"the pipeline returned no finite video, but shape {video.shape}")
    return (video.clip(0, 1) * 255).round().astype(np.uint8)


def find_function(name):
    """Import a function that the user has named as "module:function".

    Raises:
        InputError: there is none.
    """
    where = f"--pipeline {typed(name)}"
    module, _, function = name.partition(":")
    parts = [*module.split("."), function]
    if not all(part.isidentifier() for part in parts):
        raise InputError(f"{where}: module:function is needed")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # whatever the module does when it is imported
        kind = type(error).__name__
        raise InputError(
            f"{where}: {module} cannot be imported ({kind}: {words_of(error)})"
        ) from error
    if not callable(found):
        raise InputError(f"{where}: {module} has no function {function}")
    return found


def _arguments(pipe, where):
    """Return {field of a request: None} of what a pipeline takes.

    Raises:
        InputError: it is no pipeline that makes a video of a prompt alone.
    """
    from diffusers import DiffusionPipeline

    if not isinstance(pipe, DiffusionPipeline):
        raise InputError(
            f"{where}: it returned {type(pipe).__name__}; a diffusers pipeline is needed"
        )
    parameters = inspect.signature(type(pipe).__call__).parameters
    missing = {"prompt", "generator", "output_type"} - parameters.keys()
    if missing:
        raise InputError(
            f"{where}: a {type(pipe).__name__} takes no {min(missing)}; a pipeline that makes a "
            "video of a prompt is needed"
        )
    for name, parameter in list(parameters.items())[1:]:
        is_open = parameter.default is parameter.empty
        is_single = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if is_open and is_single and name != "prompt":
            raise InputError(
                f"{where}: a {type(pipe).__name__} needs {name}, which a request cannot give"
            )
    return {field: None for field in ("seed", *FIELDS) if field in parameters or field == "seed"}
