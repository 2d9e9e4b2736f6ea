"""What leaves a guarded call: stopped videos are black in every form of output, others stay."""

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx2.pipeline_output import LTX2PipelineOutput
from diffusers.pipelines.wan.pipeline_output import WanPipelineOutput
from PIL import Image

from benchmarks.common.pipeline_world import STEPS
from lvd import Guard
from lvd.errors import InputError
from lvd.guard.output import blank_videos
from lvd.rules.rule import SAFE, UNSAFE
from tests.worlds.pipeline_world import tiny_of

VIDEOS, FRAMES = 3, 2
Pair = namedtuple("Pair", "frames audio")


@dataclass
class Own:
    frames: object
    fps: int = 8
    name: str = "clip"


@dataclass(frozen=True)
class Frozen:
    frames: object


def tensor(*shape):
    return torch.arange(1.0, 1 + np.prod(shape)).view(shape)


def video():
    return tensor(VIDEOS, FRAMES, 3, 4, 4)


def picture(k):
    return Image.fromarray(np.full((4, 6, 3), 50 + k, np.uint8))


def pictures():
    return [[picture(10 * k + f) for f in range(FRAMES)] for k in range(VIDEOS)]


OUTPUTS = {  # what pipelines return → the parts that hold videos
    "tensor": (video, lambda x: [x]),
    "array": (lambda: video().numpy(), lambda x: [x]),
    "bytes": (lambda: video().numpy().astype(np.uint8), lambda x: [x]),
    "bfloat16": (lambda: video().bfloat16(), lambda x: [x]),
    "pictures": (pictures, lambda x: [x]),
    "list of tensors": (lambda: list(video()), lambda x: [x]),
    "tuple": (lambda: (video(),), lambda x: [x[0]]),
    "tuple of several": (lambda: (video(), tensor(VIDEOS, 9), None, 24), lambda x: x[:2]),
    "named tuple": (lambda: Pair(video(), tensor(VIDEOS, 9)), lambda x: [x.frames, x.audio]),
    "dict": (lambda: {"frames": video(), "seed": 3}, lambda x: [x["frames"]]),
    "object": (lambda: SimpleNamespace(frames=video()), lambda x: [x.frames]),
    "dataclass": (lambda: Own(pictures()), lambda x: [x.frames]),
    "of diffusers": (lambda: WanPipelineOutput(video()), lambda x: [x.frames, x[0], x["frames"]]),
    "with audio": (
        lambda: LTX2PipelineOutput(video(), tensor(VIDEOS, 2, 9)),
        lambda x: [x.frames, x.audio, x[0], x[1], *x.to_tuple()],
    ),
    "inference tensor": (lambda: _inferred(video()), lambda x: [x]),
    "with gradients": (lambda: video().requires_grad_(), lambda x: [x.detach()]),
    "shared memory": (lambda: tensor(1, FRAMES, 3).expand(VIDEOS, -1, -1), lambda x: [x]),
}


@torch.inference_mode()
def _inferred(x):
    return x + 1


def numbers(video):
    """The values of one video, of any kind."""
    if torch.is_tensor(video):
        return video.detach().float().numpy()
    return np.stack([np.asarray(frame) for frame in video])


def is_black(video):
    return not numbers(video).any()


def same(video, other):
    return np.array_equal(numbers(video), numbers(other)) and not is_black(video)


@pytest.mark.parametrize("sections", [2, VIDEOS])
def test_sections_are_not_taken_for_videos(sections):
    """As many sections as videos, too: each holds all videos, as FramePack returns its latents."""
    given = [tensor(VIDEOS, 4, 2 + k, 4, 4) for k in range(sections)]
    found = blank_videos(WanPipelineOutput(list(given)), [1], VIDEOS).frames
    for section, before in zip(found, given, strict=True):
        assert is_black(section[1]) and same(section[0], before[0]) and same(section[2], before[2])
    with pytest.raises(InputError, match="cannot be told apart"):
        blank_videos([tensor(VIDEOS - 1, 4, 2, 4, 4)] * sections, [1], VIDEOS)
    own = [tensor(1, 4, 2, 4, 4) for _ in range(VIDEOS)]  # of one video each
    assert [is_black(video[0]) for video in blank_videos(own, [1], VIDEOS)] == [False, True, False]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("stopped", [[1], [0, 2], [0, 1, 2]])
def test_every_form_of_output(name, stopped):
    make, parts = OUTPUTS[name]
    given, before = make(), make()
    found = blank_videos(given, stopped, VIDEOS)
    assert type(found) is type(before)
    for part, plain in zip(parts(found), parts(before), strict=True):
        assert len(part) == VIDEOS and getattr(part, "dtype", 0) == getattr(plain, "dtype", 0)
        for k in range(VIDEOS):
            assert is_black(part[k]) if k in stopped else same(part[k], plain[k])


NOT_APART = {
    "frames of all videos": lambda: tensor(VIDEOS * FRAMES, 3, 4, 4),
    "pictures of all videos": lambda: sum(pictures(), []),
    "one number": lambda: torch.tensor(3.0),
    "audio of another length": lambda: (video(), tensor(9)),
    "bytes": lambda: b"an mp4",
    "base64": lambda: "AAAAIGZ0eXBpc29t" * 100,
    "frames in base64": lambda: ["iVBORw0KGgo" * 100] * VIDEOS * FRAMES,
    "file": lambda: SimpleNamespace(frames=video(), file=open),
    "iterator": lambda: iter(video()),
    "frozen": lambda: Frozen(video()),
    "nested": lambda: torch.nested.nested_tensor([tensor(2), tensor(3), tensor(4)]),
    "a video that is no picture": lambda: [object()] * VIDEOS,
}


@pytest.mark.parametrize("name", NOT_APART)
def test_an_output_whose_videos_cannot_be_told_apart_is_not_handed_out(name):
    with pytest.raises(InputError, match="nothing (of it )?is handed out") as error:
        blank_videos(NOT_APART[name](), [1], VIDEOS)
    assert len(str(error.value)) < 300


def test_what_is_no_video_stays():
    given = Own(video(), 24, "clip")
    others = [0, 8], "mp4", None, True, ["a"]
    found = blank_videos((given.frames, *others), [1], VIDEOS)
    assert found[1:] == others
    assert blank_videos("AAAA" * 1000, range(VIDEOS), VIDEOS) == ""  # it held them all


# ---- the pipelines of diffusers


def guard_of(world):
    """A guard of any pipeline, to which the second of two videos is unsafe."""
    guard = Guard(world.shared, 1, 1, "cpu")
    guard.bank.score = lambda step, clips: torch.tensor([[0.0, 0.0], [1.0, 0.0]])[: len(clips)]
    guard.check = lambda sampling: {}
    guard.members = []  # so that each step is judged as the trained step of its number
    guard.reader = lambda step, x0: x0
    return guard


def frames_of(tiny, **changes):
    torch.manual_seed(100)
    return tiny.pipe(**tiny.inputs([1, -1], (3, 4), steps=STEPS, **changes))


# One of each form of output; tests/guard/test_known_pipelines.py tries the others' latents.
FORMS = (
    "AnimateDiffPipeline",
    "TextToVideoSDPipeline",
    "StableVideoDiffusionPipeline",
    "I2VGenXLPipeline",
    "CogVideoXPipeline",
    "LTXPipeline",
    "WanImageToVideoPipeline",
    "HunyuanVideoPipeline",
    "MochiPipeline",
    "LattePipeline",
    "SanaVideoPipeline",
    "EasyAnimatePipeline",
)


@pytest.mark.parametrize("name", FORMS)
def test_a_batch_of_every_pipeline(world, name):
    """As arrays in an object of its own, and as pictures in a tuple."""
    tiny, guard = tiny_of(name), guard_of(world)
    for output_type, return_dict in (("np", True), ("pil", False)):
        changes = dict(output_type=output_type, return_dict=return_dict)
        plain = frames_of(tiny, **changes)
        plain = plain if isinstance(plain, list) else plain[0]
        with guard.watch(tiny.pipe) as watch:
            output = frames_of(tiny, **changes)
        # Stable Video Diffusion returns the frames themselves.
        found = output if isinstance(output, list) else output[0]
        assert return_dict or output is found or type(output) is tuple
        assert [result.verdict for result in watch.results] == [SAFE, UNSAFE]
        assert type(found) is type(plain) and len(found) == len(plain) == 2
        assert is_black(found[1]) and not is_black(plain[1])
        assert same(found[0], plain[0])


@pytest.mark.parametrize("output_type", ["np", "pil", "pt", "latent"])
def test_all_stopped_and_interrupted(world, output_type):
    tiny, guard = tiny_of("AnimateDiffPipeline"), guard_of(world)
    guard.bank.score = lambda step, clips: torch.ones(len(clips), 2)
    with guard.watch(tiny.pipe, on_unsafe="interrupt") as watch:
        found = frames_of(tiny, output_type=output_type).frames
    assert all(result.stopped for result in watch.results)
    assert len(found) == 2 and is_black(found[0]) and is_black(found[1])


def test_several_videos_of_one_prompt(world):
    """As many videos leave the call as were judged."""
    tiny, guard = tiny_of("WanPipeline"), guard_of(world)
    draw = torch.Generator().manual_seed(5)
    given = tiny.inputs([1], num_videos_per_prompt=2, generator=draw, output_type="np")
    plain = tiny.pipe(**given).frames
    draw.manual_seed(5)
    with guard.watch(tiny.pipe) as watch:
        found = tiny.pipe(**given).frames
    assert [result.verdict for result in watch.results] == [SAFE, UNSAFE]
    assert same(found[0], plain[0]) and is_black(found[1]) and not is_black(plain[1])


class Joined(diffusers.AnimateDiffPipeline):
    """Returns all frames in a row."""

    def __call__(self, **inputs):
        return super().__call__(**inputs).frames.flatten(0, 1)


def test_a_pipeline_that_joins_its_videos(world):
    """Handed out when all of them are safe; else nothing is."""
    tiny, guard = tiny_of("AnimateDiffPipeline"), guard_of(world)
    kind, tiny.pipe.__class__ = type(tiny.pipe), Joined
    given = tiny.inputs([1, -1], (3, 4), steps=STEPS)
    try:
        with pytest.raises(InputError, match="cannot be told apart"), guard.watch(tiny.pipe) as w:
            tiny.pipe(**given)
        assert SAFE not in [result.verdict for result in w.results]
        guard.bank.score = lambda step, clips: torch.zeros(len(clips), 2)
        with guard.watch(tiny.pipe):
            assert tiny.pipe(**tiny.inputs([1, -1], (3, 4), steps=STEPS)).any()
    finally:
        tiny.pipe.__class__ = kind
