"""Reading and writing mp4 files (H.264, yuv420p: what every player opens)."""

import io
from importlib.util import find_spec

import numpy as np

from lvd.errors import InputError
from lvd.utils.files import need_file
from lvd.utils.partials import atomic

FPS = 8  # frames per second


def has_av():
    """Tell whether PyAV is installed. Who writes no mp4 does without it."""
    return find_spec("av") is not None


def write_mp4(path, frames, fps=FPS, crf=18, durable=True):
    """Write a video atomically. The same frames give the same bytes.

    Args:
        path: of the mp4 file.
        frames: uint8 [F, H, W, 3], H and W even.
        fps: frames per second.
        crf: x264's quality, from 0 (nearly lossless) to 51. Colour has half the resolution.
        durable: see `atomic`.

    Raises:
        InputError: H or W is odd.
    """
    import av

    _need_even(frames, path)
    with (
        atomic(path, durable) as partial,
        av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        _encode(container, frames, fps, crf)


def mp4_bytes(frames, fps=FPS, crf=18):
    """Return a video as the bytes of an mp4 file, which never lies on a disk.

    Args:
        frames, fps, crf: see `write_mp4`.

    Raises:
        InputError: H or W is odd.
    """
    import av

    _need_even(frames, "mp4")
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        _encode(container, frames, fps, crf)
    return memory.getvalue()


def _need_even(frames, where):
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise InputError(f"{where}: frames of {width}x{height} px, H.264 needs even sizes")


def _encode(container, frames, fps, crf):
    """Write frames, uint8 [F, H, W, 3], into an open container."""
    import av

    # No look-ahead and no B-frames: on very small frames x264 decides about them by memory that
    # it never initialised, so the bytes would differ from run to run.
    options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "rc-lookahead": "0"}
    stream = container.add_stream("libx264", rate=fps, options=options)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1  # threads would make the bytes depend on the machine
    for frame in np.ascontiguousarray(frames):
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())


def read_mp4(path):
    """Read a video.

    Returns:
        uint8 frames [F, H, W, 3].

    Raises:
        InputError: the file is missing, truncated or not a video.
    """
    import av

    need_file(path)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            promised = stream.frames
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(
            f"{path}: not a readable video ({str(error).splitlines()[0][:100]})"
        ) from error
    if not frames or len(frames) < promised:
        raise InputError(f"{path}: truncated video, {len(frames)} of {promised} frames can be read")
    return np.stack(frames)
