"""Videos to look at: mp4 that plays everywhere, gif on request, filmstrips of predicted x0."""

import numpy as np
from PIL import Image, ImageDraw

from lvd.utils.partials import atomic
from lvd.utils.video import write_mp4

CRF = 12  # H.264's constant rate factor: near transparent
STRIP_STEPS = (0, 5, 10, 20, 35, 49)


def write_video(path_without_suffix, frames, fps, kinds):
    """Write frames as one file per kind.

    Args:
        path_without_suffix: of the files.
        frames: uint8 [F, H, W, 3].
        fps: frames a second.
        kinds: of "mp4", "gif".
    """
    if "mp4" in kinds:
        write_mp4(f"{path_without_suffix}.mp4", frames, fps, CRF)
    if "gif" in kinds:
        write_gif(f"{path_without_suffix}.gif", frames, fps)


def video_kinds(setting):
    """Return the file suffixes of the YAML's `format`: mp4, gif or both."""
    return ("mp4", "gif") if setting == "both" else (setting,)


def write_gif(path, frames, fps):
    """Write frames, uint8 [F, H, W, 3], as a gif that plays for ever."""
    images = [Image.fromarray(frame) for frame in frames]
    with atomic(path) as partial:
        images[0].save(
            partial, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0
        )


def write_filmstrip(path, rows, caption="", side=128, columns=8, left=76, smooth=False):
    """Draw clips as rows of frames in one PNG.

    Args:
        path: of the PNG.
        rows: [(label, uint8 [F, H, W, 3])]; labels and the caption may have several lines.
        caption: text above the rows.
        side: pixels of a frame's longer side.
        columns: the most frames of a row, spread evenly over the clip.
        left: pixels of the labels.
        smooth: enlarge small frames without edges between their pixels: of a few pixels shapes
            are seen that squares would hide.
    """
    top = 18 + 13 * caption.count("\n")  # pixels of the caption
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    count = min(columns, len(rows[0][1]))
    canvas = Image.new("RGB", (left + count * (side + 2), top + len(rows) * (side + 2)), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 3), caption, fill="black")
    for i, (label, frames) in enumerate(rows):
        y = top + i * (side + 2)
        draw.text((4, y + side // 2 - 6 - 7 * label.count("\n")), label, fill="black")
        for j, k in enumerate(np.linspace(0, len(frames) - 1, count).round().astype(int)):
            image = Image.fromarray(frames[k])
            image.thumbnail((side, side))  # keeps the shape; small frames are enlarged below
            scale = side // max(image.size)
            if scale > 1:
                image = image.resize((image.width * scale, image.height * scale), method)
            canvas.paste(image, (left + j * (side + 2), y))
    with atomic(path) as partial:
        canvas.save(partial)


def strip_steps(count):
    """Return the steps that a filmstrip shows of `count`: STRIP_STEPS, or evenly spaced ones."""
    if count > STRIP_STEPS[-1]:
        return list(STRIP_STEPS)
    return sorted({round(i * (count - 1) / 5) for i in range(6)})
