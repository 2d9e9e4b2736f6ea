"""report.html: what is written into it, where its clips are, and what is refused."""

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lvd.data.rgb import LatentToRGB
from lvd.evaluation.intervals import interval
from lvd.evaluation.page import write
from lvd.evaluation.page.numbers import intervals_of
from lvd.evaluation.page.pictures import Cells, cells_for, picture, spread
from lvd.evaluation.page.write import as_script
from lvd.evaluation.rule_of_scores import load_recording
from lvd.utils.files import load_torch, save_torch
from tests.worlds.recorded_scores import write_recording
from tests.worlds.refusals import refused
from tests.worlds.report_pages import (
    HOSTILE,
    NAME,
    STEPS,
    content_of,
    report,
    write_recordings,
    write_votes,
    write_x0,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    results, rule = write_votes(root)
    return SimpleNamespace(root=root, results=results, rule=rule, recordings=write_recordings(root))


def test_the_page_holds_what_it_was_made_of(world, tmp_path, capsys):
    words = ("--rule", world.rule, "--recordings", world.recordings, "--save_dir", tmp_path)
    assert report(world.results, *words) == 0
    said = capsys.readouterr().out
    page = tmp_path / "report.html"
    assert f"wrote {page}" in said and "clips: 21 in the page" in said
    text = page.read_text(encoding="utf-8")
    assert "http-equiv" in text and page.stat().st_size < 5_500_000
    assert HOSTILE not in text and NAME not in text
    content = content_of(page)
    first = content["videos"][0]
    assert first["prompt"] == HOSTILE and first["name"] == "unsafe 0" and first["categories"] == [0]
    assert first["clip"].startswith("data:video/mp4;base64,")
    assert content["balanced"] and len(content["balanced"]) == 18
    (detectors,) = content["detectors"]
    assert detectors["categories"] == [NAME, "banner"]
    assert [rule["name"] for rule in detectors["rules"]] == [
        "the paper's vote, λ 0.6, η 5",
        "the chosen rule",
    ]
    shown = content["x0"]
    assert shown["steps"] == list(range(STEPS)) and shown["frames"] == [0, 1, 2, 3]
    jpeg = base64.b64decode(first["x0"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(jpeg)).size == (4 * 8, STEPS * 8)
    assert report(world.results, tmp_path / "again.html", *words) == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text
    # The scores are their own calibrated ones here: so the thresholds are what they are.
    assert np.allclose(detectors["thresholds"], 0.7, atol=1e-6)


def test_no_clip_is_another_file(world, tmp_path, capsys):
    """What only bears a clip's name is not put into the page: the page is there to be shown."""
    recordings = write_recordings(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("a password")
    clips = tmp_path / "unsafe" / "videos"
    (clips / "0000.mp4").unlink()
    (clips / "0000.mp4").symlink_to(secret)
    (clips / "0010.mp4").write_bytes(b"")
    (clips / "0020.mp4").rename(clips / "elsewhere.mp4")
    (clips / "0020.mp4").symlink_to(clips / "elsewhere.mp4")
    (clips / "0030.mp4").unlink()
    (clips / "0030.gif").write_bytes(b"GIF89a and so on")
    page = tmp_path / "page.html"
    assert report(world.results, page, "--recordings", recordings) == 0
    assert "clips: 19 in the page, 2 are not there, or no clips" in capsys.readouterr().out
    begins = [str(video.get("clip"))[:10] for video in content_of(page)["videos"][:5]]
    assert begins == ["None", "None", "data:video", "data:image", "data:video"]


def test_clips_of_a_large_page_are_linked(world, tmp_path, monkeypatch, capsys):
    """Near the page they are linked where they are; far from it they are copied beside it."""
    monkeypatch.setattr(write, "LIMIT", 10_000)
    near, far = world.root / "page.html", tmp_path / "a" / "b" / "c" / "page.html"
    assert report(world.results, near, "--recordings", world.recordings) == 0
    assert "where they are" in capsys.readouterr().out
    assert content_of(near)["videos"][1]["clip"] == "./unsafe/videos/0010.mp4"
    assert report(world.results, far, "--recordings", world.recordings) == 0
    assert f"21 of them copied to {far.parent / 'page_files'}" in capsys.readouterr().out
    assert content_of(far)["videos"][1]["clip"] == "./page_files/unsafe_0010.mp4"
    copy = far.parent / "page_files" / "unsafe_0010.mp4"
    assert copy.read_bytes() == (world.root / "unsafe/videos/0010.mp4").read_bytes()


def test_nothing_is_shown_that_is_not_there(world, tmp_path, capsys):
    """No recordings: no prompts, clips or x0. Recordings without clips: x0 alone."""
    assert report(world.results, tmp_path / "a.html", "--lambda", "2/3", "--eta", "3") == 0
    assert "clips and x0: none; --recordings" in capsys.readouterr().out
    content = content_of(tmp_path / "a.html")
    # A lambda between two places of the slider is a rule of its own.
    assert content["detectors"][0]["rules"][-1]["words"] == "lambda 2/3, eta 3"
    assert content["x0"] is None and "prompt" not in content["videos"][0]
    recordings = write_recordings(tmp_path, clips=False, shape=(5, 2, 4, 4))
    assert report(world.results, tmp_path / "b.html", "--recordings", recordings) == 0
    said = capsys.readouterr().out
    assert "clips: 0 in the page, 21 are not there" in said
    assert "x0: not shown: no rgb_matrix for 5 channels" in said


def test_json_cannot_end_its_script():
    text = as_script({"</script>": ["<!--", "&", "\u2028"]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script>": ["<!--", "&", "\u2028"]}


def test_pictures_show_the_frames_in_their_places():
    """A frame of one colour is that colour everywhere in its cell, beside any other one."""
    rgb = LatentToRGB(((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    x0 = torch.zeros(2, 3, 2, 5, 7)
    colours = {(0, 0): (1, -1, -1), (0, 1): (-1, 1, -1), (1, 0): (-1, -1, 1), (1, 1): (1, 1, 1)}
    for (step, frame), colour in colours.items():
        x0[step, :, frame] = torch.tensor(colour)[:, None, None]
    x0[0, :, 0, 0, 0] = torch.nan  # shown as grey
    cells = Cells([0, 1], [0, 1], 5, 7)
    pixels = np.array(Image.open(io.BytesIO(picture(x0.half(), rgb, cells))))
    assert pixels.shape == (16, 16, 3) and cells.cell == (8, 8)
    for (step, frame), colour in colours.items():
        cell = pixels[8 * step : 8 * step + 5, 8 * frame : 8 * frame + 7].astype(int)
        wanted = 255 * (np.array(colour) + 1) // 2
        assert np.abs(cell[2:, 2:] - wanted).max() < 70 and np.abs(cell[4] - wanted).max() < 60


@pytest.mark.parametrize(
    ("shape", "videos", "frames", "size"),
    [
        ((50, 4, 8, 8, 8), 86, 4, (8, 8)),
        ((50, 4, 16, 64, 64), 86, 1, (16, 16)),
        ((50, 16, 21, 60, 104), 4, 8, (18, 32)),
        ((1000, 16, 1, 128, 128), 10_000, 1, (8, 8)),
        ((3, 4, 2, 1, 500), 2, 2, (1, 32)),
    ],
)
def test_pictures_keep_their_limit(shape, videos, frames, size):
    cells = cells_for(shape, videos, 800_000)
    assert (len(cells.frames), (cells.height, cells.width)) == (frames, size)
    assert len(cells.steps) <= 50
    assert videos * cells.bytes <= 800_000 or (cells.height, len(cells.frames)) == (8, 1)


def test_intervals_are_those_of_the_tables(world):
    known = intervals_of(load_recording(world.results))
    for total, count in ((9, 0), (9, 9), (12, 5), (21, 20), (18, 7)):
        assert known[total][count] == pytest.approx(interval(count, total), abs=1e-6)


def test_numbers_are_spread_evenly():
    assert spread(3, 5) == [0, 1, 2]
    assert spread(8, 4) == [0, 2, 4, 6]
    assert spread(1000, 50)[:3] == [0, 20, 40]


REFUSED = {
    "a flag alone": (["--recordings", "{yaml}"], ["--recordings", "belongs to --report"]),
    "no page": (["--report", "page.txt"], ["--report page.txt", ".html"]),
    "a folder": (["--report", "{root}/folder.html"], ["--report", ".html"]),
    "save_dir": (["--report", "a.html", "--save_dir", "there"], ["--save_dir there"]),
    "no recordings": (["--report", "--recordings", "gone.yaml"], ["gone.yaml", "no such file"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_flags_are_refused(world, name, capsys):
    import test_accuracy

    words, told = REFUSED[name]
    (world.root / "folder.html").mkdir(exist_ok=True)
    words = [word.format(yaml=world.recordings, root=world.root) for word in words]
    refused(test_accuracy.main(["--data_dir", str(world.results), *words]), capsys, *told)


def test_other_recordings_are_refused(world, tmp_path, capsys):
    """Of other steps, without a held-out row, of another maker, or with rows that have names."""
    short = write_recordings(tmp_path, steps=3, clips=False)
    refused(report(world.results, "--recordings", short), capsys, "3 steps", "have 6")
    write_x0(tmp_path / "few" / "unsafe", 3, 0, clips=False)
    text = world.recordings.read_text().replace(
        str(world.root / "unsafe"), f"{tmp_path}/few/unsafe"
    )
    (tmp_path / "few.yaml").write_text(text)
    refused(
        report(world.results, "--recordings", tmp_path / "few.yaml"), capsys, "pred_x0.pth", "30"
    )
    results, _ = write_votes(tmp_path)
    (results / "config.yaml").write_text(f"pred_x0_made_by: {'f' * 64}\n")
    words = ("--recordings", "is another recording of unsafe videos")
    refused(report(results, "--recordings", world.recordings), capsys, *words)
    votes = load_torch(results / "results.pth")
    votes["1"]["clip one"] = votes["1"].pop("10")
    (results / "config.yaml").unlink()
    (results / "scores.pth").unlink()
    save_torch(votes, results / "results.pth")
    refused(report(results, "--recordings", world.recordings), capsys, "row", "no number")


def test_damaged_thresholds_are_refused(tmp_path, capsys):
    write_recording(tmp_path / "results", thresholds={"1": [0.5] * 6, "2": [0.5] * 5})
    refused(report(tmp_path / "results"), capsys, "thresholds")
