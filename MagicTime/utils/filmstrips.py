"""Filmstrips of a finished run: the predicted x0 at a few steps beside the final clip."""

from pathlib import Path

from lvd.data.finished_clips import VIDEOS
from lvd.utils.video import read_mp4
from lvd.x0.file import open_x0_file
from lvd.x0.sidecar import video_name
from MagicTime.utils.pipeline import decode, to_bytes
from MagicTime.utils.video import strip_steps, write_filmstrip


def draw_filmstrips(folder, recording, vae, count, device=None):
    """Draw the filmstrips that are missing, named as the videos: filmstrips/0000.png, ...

    Args:
        folder: of the run.
        recording: path of its predicted x0.
        vae: AutoencoderKL that decodes x0.
        count: how many recorded rows, from the first.
        device: where to decode, if the VAE visits it only when called.

    Returns:
        [their folder], or [] where nothing is recorded yet.
    """
    folder = Path(folder)
    x0 = open_x0_file(recording)
    for row in x0.rows[:count]:
        name = video_name(row, x0.info.get(row, {}))
        path = folder / "filmstrips" / f"{name}.png"
        if path.exists():
            continue
        steps = strip_steps(x0.tensor.shape[1])
        rows = [
            (f"step {step}", to_bytes(decode(vae, x0.tensor[row, step].float(), device=device)))
            for step in steps
        ]
        video = folder / VIDEOS / f"{name}.mp4"
        if video.exists():
            rows.append(("final clip", read_mp4(video)))
        write_filmstrip(path, rows, x0.info.get(row, {}).get("prompt") or "")
    return [folder / "filmstrips"] if x0.rows else []
