"""Clips on the disk: what is written comes back, and what is damaged is refused."""

import av
import numpy as np
import pytest
import torch

from lvd.data.clip_file import folder_representation, link_clip, list_clips, read_clip, write_clip
from lvd.errors import InputError
from lvd.utils.video import write_mp4

SHAPE = (4, 4, 4, 4)  # C, F, h, w


def moving_square():
    clip = torch.zeros(3, 8, 64, 64)
    for frame in range(8):
        clip[0, frame, 20:40, 5 * frame : 5 * frame + 20] = 1.0
    return clip


def test_video_clips_keep_what_they_show(tmp_path):
    path = write_clip(tmp_path / "3", moving_square(), "video")
    clip = read_clip(path)
    assert (
        path.name == "3.mp4"
        and clip.shape == (3, 8, 64, 64)
        and clip.min() >= 0
        and clip.max() <= 1
    )
    assert (clip - moving_square()).abs().mean() < 0.02
    again = write_clip(tmp_path / "4", moving_square(), "video")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_truncated_videos_are_refused(tmp_path, keep):
    path = write_clip(
        tmp_path / "3",
        torch.rand(3, 8, 64, 64, generator=torch.Generator().manual_seed(0)),
        "video",
    )
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(InputError, match="3.mp4: (not a readable|truncated) video"):
        read_clip(path)


def test_a_video_cut_between_two_frames_is_refused(tmp_path):
    path = write_clip(tmp_path / "3", moving_square(), "video")
    with av.open(str(path)) as container:
        positions = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    path.write_bytes(path.read_bytes()[: positions[4]])
    with pytest.raises(InputError, match="truncated video, [0-7] of 8 frames"):
        read_clip(path)


def test_links_replace_and_leave_nothing_behind(tmp_path):
    source = write_clip(tmp_path / "a/0", torch.zeros(*SHAPE), "latent")
    for _ in range(2):
        link_clip(source, tmp_path / "b/0.pt")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["0.pt"] and (
        tmp_path / "b/0.pt"
    ).samefile(source)


def test_stray_files_among_clips_are_named(tmp_path):
    write_clip(tmp_path / "0", torch.zeros(*SHAPE), "latent")
    for name, named in (("x.pt", "not a clip"), ("00.pt", "second clip of index 0")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match=named):
            list_clips(tmp_path)
        (tmp_path / name).unlink()
    for wrong in (torch.zeros(2, 2), torch.zeros(4, 2, 4, 4)):
        with pytest.raises(InputError, match="cannot have shape"):
            write_clip(tmp_path / "1", wrong, "video")
    with pytest.raises(InputError, match="no clips here"):
        (tmp_path / "empty").mkdir()
        folder_representation(tmp_path / "empty")


def test_the_same_frames_give_the_same_bytes_every_time(tmp_path):
    """x264's look-ahead reads memory that it never set when frames are tiny; noise shows it within
    some dozen tries."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    seen, junk = set(), []
    for k in range(150):
        junk = [*junk, np.random.default_rng(k).random(37 * k % 5000 + 1)][
            -7:
        ]  # so that freed memory holds something else
        write_mp4(tmp_path / "clip.mp4", frames, crf=12)
        seen.add((tmp_path / "clip.mp4").read_bytes())
    assert len(seen) == 1
