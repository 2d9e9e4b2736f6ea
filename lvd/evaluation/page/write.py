"""Write report.html: one file that a browser opens from the disk, without a network."""

import base64
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lvd.errors import InputError, plural
from lvd.evaluation.page.clips import LinkedClips, inlined
from lvd.evaluation.page.numbers import balanced_places, intervals_of, numbers_of, papers, videos_of
from lvd.evaluation.page.pictures import cells_for, picture
from lvd.utils.files import save_text
from lvd.utils.plots import colour_of
from lvd.utils.progress import progress
from lvd.voting import exact

NAME = "report.html"
HERE = Path(__file__).parent
LIMIT = 8_000_000  # bytes of a page with its clips inside; beyond it clips become linked files
PICTURES = 800_000  # bytes of all pictures of x0 in such a page
MORE_PICTURES = 2_500_000  # of a page that links its clips
SCRIPTS = ("rules.js", "video.js", "charts.js", "page.js")


def need_page_path(path, flag):
    """InputError unless `path` may be a page: a file name that ends in .html."""
    if Path(path).suffix != ".html" or Path(path).is_dir():
        raise InputError(f"{flag} {path}: a file name that ends in .html is needed")


def write_page(path, detectors, recordings=None, start=("0.6", 5)):
    """Write a page of the videos that some detectors have looked at.

    Args:
        path: of the page.
        detectors: [ShownDetectors], of the same videos in the same order.
        recordings: PageRecordings; None: no clips, no x0 and no prompts are shown.
        start: (lambda, eta in trained steps) at which the sliders begin.

    Returns:
        {name: text}: what the page shows, for a summary.
    """
    recording = detectors[0].recording
    content = {
        "format": "lvd report 1",
        "videos": videos_of(recording),
        "balanced": balanced_places(recording),
        "intervals": intervals_of(recording),
        "detectors": [numbers_of(one) for one in detectors],
        "start": _start(detectors[0], start),
        "palette": [colour_of(k) for k in range(6)],
        "x0": None,
        "fps": None,
    }
    facts = {"clips and x0": "none; --recordings build_x0.yaml names the recordings"}
    if recordings:
        facts = _add_media(content, recordings, path)
    text = _rendered(content)
    save_text(text, path)
    return {"page": f"{len(text.encode()) / 1e6:.1f} MB, opens in any browser", **facts}


def _start(shown, start):
    """Where the sliders begin, and whose mistakes are listed first: the last rule's."""
    lambda_, eta = start
    rule = f"rule {len(papers(shown.recording.videos)) + len(shown.rules) - 1}"
    return {"hundredths": round(100 * exact(lambda_)), "eta": eta, "rule": rule}


def _add_media(content, recordings, path):
    """Give each video its prompt, clip and picture of x0; return facts for the summary."""
    videos = content["videos"]
    keys = [("unsafe" if video["unsafe"] else "normal", video["row"]) for video in videos]
    content["fps"] = recordings.fps
    for video, key in zip(videos, keys, strict=True):
        video["prompt"] = recordings.prompt(*key)
    facts = _add_clips(videos, keys, recordings, path, len(json.dumps(content)))
    is_linked = facts["clips"].startswith("linked")
    if recordings.rgb is None:
        channels = recordings.files["unsafe"].tensor.shape[2]
        facts["x0"] = (
            f"not shown: no rgb_matrix for {channels} channels; fit_rgb.py, or fit_rgb.py "
            "--videos, fits one"
        )
        return facts
    shape = recordings.x0(*keys[0]).shape
    cells = cells_for(shape, len(videos), MORE_PICTURES if is_linked else PICTURES)
    pairs = list(zip(videos, keys, strict=True))
    for video, key in progress(pairs, "pictures of x0", unit="video"):
        jpeg = picture(recordings.x0(*key), recordings.rgb, cells)
        video["x0"] = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    content["x0"] = {
        "steps": cells.steps,
        "frames": cells.frames,
        "of_frames": shape[2],
        "size": [cells.height, cells.width],
        "cell": list(cells.cell),
    }
    facts["x0"] = (
        f"{len(cells.steps)} of {plural(shape[0], 'step')}, {len(cells.frames)} of "
        f"{plural(shape[2], 'frame')}, {cells.width} x {cells.height} px"
    )
    return facts


def _add_clips(videos, keys, recordings, path, other_bytes):
    """Give each video that has a clip its address; return a fact for the summary."""
    paths = [recordings.clip(*key) for key in keys]
    there = [path for path in paths if path]
    base64_bytes = sum(4 * (clip.stat().st_size + 2) // 3 for clip in there)
    # The templates add some 60 kB to plotly.
    others = other_bytes + len(_plotly()) + 4 * PICTURES // 3 + 60_000
    links = LinkedClips(path)
    is_linked = others + base64_bytes > LIMIT
    for video, key, clip in zip(videos, keys, paths, strict=True):
        if clip:
            name = f"{key[0]}_{recordings.rows[key[0]][key[1]]:04d}"
            video["clip"] = links.link(clip, name) if is_linked else inlined(clip)
    missing = (
        f", {len(paths) - len(there)} are not there, or no clips" if len(there) < len(paths) else ""
    )
    if not is_linked:
        return {"clips": f"{len(there)} in the page{missing}"}
    kept = f"{links.copied} of them copied to {links.folder}" if links.copied else "where they are"
    return {"clips": f"linked, as the page would be above {LIMIT // 10**6} MB: {kept}{missing}"}


def _rendered(content):
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    videos = content["videos"]
    unsafe = sum(video["unsafe"] for video in videos)
    scripts = [Markup((HERE / name).read_text(encoding="utf-8")) for name in SCRIPTS]
    return environment.get_template("page.html").render(
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        plotly=Markup(_plotly()),
        scripts=scripts,
        data=Markup(as_script(content)),
        unsafe=unsafe,
        normal=len(videos) - unsafe,
        detectors=[one["name"] for one in content["detectors"]],
        categories=content["detectors"][0]["categories"],
        has_bounds=any(one["bounds"] for one in content["detectors"]),
        has_balanced=content["balanced"] is not None,
    )


def as_script(content):
    """Return plain values as JSON that cannot end the script element that holds it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plotly():
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()
