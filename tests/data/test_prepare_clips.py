"""Clips that are resized for their model: recordings, folders, votes and the guard see the same
bits."""

from types import SimpleNamespace

import pytest
import torch

from lvd.data.clip_file import note_representation
from lvd.data.clip_folders import NORMAL, ClipWriter
from lvd.data.labels import read_labels
from lvd.data.recorded_clips import RecordedClips
from lvd.data.rgb import LatentToRGB
from lvd.data.sources import FolderClips
from lvd.data.transforms import ClipSpec, prepare_clips, resize_clips
from lvd.detectors.bank import load_bank
from lvd.evaluation.held_out import score_rows
from lvd.guard.guard import Guard
from lvd.voting import step_votes
from lvd.x0.file import open_x0_file
from tests.worlds import guard_world
from tests.worlds.recording_world import record, write_labels

SHAPE, STEPS = (4, 2, 30, 52), guard_world.STEPS
ROWS = {"unsafe": 7, "normal": 3}
RGB = LatentToRGB()


def fake_vae(latents):
    """Pixels [n, 3, F, 2 h, 2 w] in [0, 1], most of them between two of the 256 values."""
    frames = RGB(latents).repeat_interleave(2, -1).repeat_interleave(2, -2)
    return torch.sigmoid(frames)


DECODES = {"latent": None, "rgb": RGB, "video": fake_vae}
SIZES = {"latent": [30, 54], "rgb": [30, 54], "video": [65, 104]}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two recordings in float16 of x0 that was float32, and the labels."""
    root = tmp_path_factory.mktemp("wide")
    live = {
        kind: record(root / kind / "pred_x0.pth", count, seed, STEPS, SHAPE, dtype=torch.float16)
        for seed, (kind, count) in enumerate(ROWS.items())
    }
    columns = {"one": [*range(0, 4)], "two": [*range(3, 7)]}
    labels = read_labels(write_labels(root / "label.csv", columns))
    return SimpleNamespace(root=root, live=live, labels=labels)


@pytest.fixture(scope="module", params=DECODES)
def world(recorded, request, tmp_path_factory):
    """Sources, detectors and a guard of one representation."""
    representation, root = request.param, tmp_path_factory.mktemp(request.param)
    decode = DECODES[representation]
    paths = [recorded.root / kind / "pred_x0.pth" for kind in ROWS]
    recordings = RecordedClips(*paths, recorded.labels, representation, decode)
    folders = _folders(root / "data", paths, recorded.labels, representation, decode)
    spec = ClipSpec(representation, decode)
    guard_world.write_detectors(
        root / "detectors",
        open_x0_file(paths[0]),
        lambda x0: prepare_clips(x0, spec),
        representation,
        recordings.made_by,
    )
    live_decode = decode if representation == "video" else None
    guard = Guard(root / "detectors", 0.6, STEPS, "cpu", decode=live_decode)
    bank = load_bank(root / "detectors")
    assert bank.input_config(0).image_size == SIZES[representation]
    live = recorded.live["unsafe"]
    return SimpleNamespace(
        recordings=recordings, folders=folders, guard=guard, bank=bank, live=live
    )


def _folders(data, paths, labels, representation, decode):
    unsafe, normal = map(open_x0_file, paths)
    homes = {row: [f"group{group}" for group in labels.groups_of(row)] for row in labels.rows()}
    for x0, folders in ((unsafe, homes), (normal, {row: [NORMAL] for row in normal.rows})):
        for _ in ClipWriter(x0, folders, data, range(STEPS), representation, decode, "pt"):
            pass
    note_representation(data, representation)
    return FolderClips(data)


def test_recordings_folders_and_the_guard_make_the_same_clips(world):
    rows = [5, 0, 3]
    for step in range(STEPS):
        model = world.bank.input_config(step)
        clips = world.recordings.read("unsafe", rows, step, model)
        assert list(clips.shape[3:]) == model.image_size and clips.dtype == torch.float16
        assert torch.equal(world.folders.read("unsafe", rows, step, model), clips)
        assert torch.equal(world.guard.reader(step, world.live[rows, step]), clips)
        one_by_one = [world.recordings.read("unsafe", [row], step, model) for row in rows]
        assert torch.equal(torch.cat(one_by_one), clips)


def test_recorded_votes_folder_votes_and_the_guards_are_the_same(world):
    rows = list(range(ROWS["unsafe"]))
    scores = []  # [step] of [video, category]
    for step in range(STEPS):
        scores.append(score_rows(world.bank, world.recordings, "unsafe", rows, step))
        of_folders = score_rows(world.bank, world.folders, "unsafe", rows, step)
        assert torch.equal(of_folders, scores[step])

    session = world.guard.session(STEPS)
    for step in range(STEPS):
        session.observe(step, world.live[:, step])
        # What the detectors say of all videos, those included whose vote is decided by now.
        clips = world.guard.reader(step, world.live[:, step])
        assert torch.equal(world.guard.bank.score(step, clips), scores[step])

    for row, result in enumerate(session.results()):
        unsafe = [
            (scores[step][row] >= torch.tensor(world.bank.thresholds(step))).int().tolist()
            for step in range(STEPS)
        ]
        votes = step_votes(list(zip(*unsafe)))
        assert result.votes == list(votes)[: len(result.votes)] and result.votes


def test_values_are_rounded_before_the_resize(world):
    """float16 or 8 bits a pixel, as a folder of clips stores them: the other order differs."""
    model, step = world.bank.input_config(1), 1
    stored = world.recordings.read("unsafe", [2], step)
    clips = world.recordings.read("unsafe", [2], step, model)
    if world.recordings.representation != "video":
        assert torch.equal(resize_clips(stored, model).half(), clips)
    decode = world.recordings.decode
    if decode:
        unrounded = decode(world.live[2:3, step].half().float())
        assert not torch.equal(resize_clips(unrounded, model).half(), clips)


def test_clips_that_are_not_finite_are_refused_before_frames_are_chosen(recorded):
    """The model takes two frames of four; the value stands in one that it would never see."""
    path = recorded.root / "broken" / "pred_x0.pth"
    shape = (4, 4, 6, 6)
    x0 = torch.zeros(1, STEPS, *shape)
    x0[0, 1, 0, 0, 0, 0] = float("inf")
    _write(path, x0)
    normal = recorded.root / "whole" / "pred_x0.pth"
    _write(normal, torch.zeros_like(x0))
    source = RecordedClips(path, normal, None)
    model = SimpleNamespace(num_channels=4, num_frames=2, image_size=6)
    assert source.read("unsafe", [0], 0, model).shape == (1, 4, 2, 6, 6)
    with pytest.raises(ValueError, match="row 0, step 1: holds values that are not finite"):
        source.read("unsafe", [0], 1, model)


def _write(path, x0):
    from lvd.utils.files import save_torch

    path.parent.mkdir()
    save_torch(x0, path)
