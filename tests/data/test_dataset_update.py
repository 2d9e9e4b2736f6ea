"""A dataset whose label file was corrected, or whose recordings have grown: the same command brings
it up to date, and it equals one that was built from nothing."""

import pytest
import torch

import build_x0
from lvd.data import dataset_update
from lvd.data.clip_folders import need_built
from lvd.errors import InputError
from lvd.utils.files import load_json, save_json
from lvd.x0.file import open_x0_file
from lvd.x0.sidecar import sidecar_path
from tests.worlds.build_world import LABELS, refuses, tree, world  # noqa: F401 (a fixture)
from tests.worlds.recording_world import STEPS, record, write_labels

CORRECTED = {"weird": [0, 3, 5, 7], "gory": [1, 3, 11, 4], "odd": [2, 9, 6]}
TOLD = "changed since: 2 rows changed category, 2 new, 1 no longer labelled"
FEWER = {"gory": [1, 3, 8, 0], "weird": [5, 7, 2]}


def from_nothing(world, name="anew"):
    """The files of a dataset that is built from nothing; its own path is in none of them."""
    assert world.build("--out_dir", world.folder / name) == 0
    return tree(world.folder / name)


def no_folders(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_dir())


@pytest.mark.parametrize(
    "columns, told",
    [
        (CORRECTED, TOLD),
        (FEWER, "changed since: 4 rows changed category, 2 no longer labelled"),
        ({**LABELS, "sixth": [0, 12]}, "changed since: 1 row changed category, 1 new"),
    ],
)
def test_corrected_labels(world, capsys, columns, told):  # noqa: F811
    assert world.build() == 0
    kept = world.data / "group1/1/5.pt"
    stamp = kept.stat().st_mtime_ns
    write_labels(world.labels, columns)
    assert world.build() == 0
    assert " ".join(capsys.readouterr().out.split()).count(told) == 1
    assert tree(world.data) == from_nothing(world)
    assert no_folders(world.data) == no_folders(world.folder / "anew")
    for folder in ("group1", "group2", "group3"):
        clip = world.data / folder / "1/5.pt"
        if clip.exists():
            assert clip.stat().st_mtime_ns == stamp  # linked, not written again
    assert world.build() == 0
    assert "changed since" not in capsys.readouterr().out.split("dataset built")[-1]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [0, 1, 2, 5, 12, 25, 38])
def test_killed_at_any_moment_the_same_command_goes_on(world, monkeypatch, at):  # noqa: F811
    """Also where the label file is put back meanwhile."""
    assert world.build() == 0
    before = tree(world.data)
    write_labels(world.labels, CORRECTED)
    calls = []

    def counted(function):
        def call(*args, **kwargs):
            calls.append(function.__name__)
            if len(calls) == at + 1:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in ("link_clip", "save_json", "save_yaml", "_remove"):
            patched.setattr(dataset_update, name, counted(getattr(dataset_update, name)))
        patched.setattr(dataset_update.Path, "unlink", counted(dataset_update.Path.unlink))
        patched.setattr(build_x0, "note_built", counted(build_x0.note_built))
        try:
            world.build()
        except Killed:
            if tree(world.data) != before:
                with pytest.raises(InputError, match="run build_x0.py to the end"):
                    need_built(world.data, range(STEPS))
    if at % 2:
        write_labels(world.labels, LABELS)
    assert world.build() == 0
    assert tree(world.data) == from_nothing(world)


def extend(world, kind, rows):  # noqa: F811
    """Record the rows that are there and more, as an extension leaves the recording."""
    path = world.folder / kind / "pred_x0.pth"
    before = open_x0_file(path).fingerprint
    path.unlink()
    sidecar = sidecar_path(path)
    sidecar.unlink()
    x0 = record(path, rows, seed=["unsafe", "normal"].index(kind))
    assert torch.equal(x0[: len(world.x0[kind])], world.x0[kind])
    save_json({**load_json(sidecar), "earlier_fingerprints": [before]}, sidecar)


def test_recordings_that_have_grown(world, capsys):  # noqa: F811
    """The same rows and more of them, as an extension leaves them."""
    assert world.build() == 0
    extend(world, "unsafe", 15)
    extend(world, "normal", 10)
    write_labels(world.labels, {**LABELS, "odd": [2, 9, 5, 14]})
    assert world.build() == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "changed since: 1 new, 2 normal videos more" in told
    assert tree(world.data) == from_nothing(world)


def test_another_file_or_recording_is_refused_in_words(world, capsys):  # noqa: F811
    assert world.build() == 0
    before = tree(world.data)
    other = write_labels(world.folder / "other.csv", CORRECTED)
    refuses(
        lambda: world.build("--label_file_dir", other),
        capsys,
        "made with another label file",
        "put the corrected file in the old one's place",
    )
    stray = world.data / "group3/0/notes.pt"
    stray.write_text("")
    write_labels(world.labels, {"weird": [0, 3], "gory": [1]})
    refuses(world.build, capsys, "notes.pt", "not a clip")
    stray.unlink()
    write_labels(world.labels, LABELS)
    assert world.build() == 0 and tree(world.data) == before


def test_an_example_prompt_of_each_category(world, capsys):  # noqa: F811
    assert world.build() == 0
    said = " ".join(capsys.readouterr().out.split())
    assert 'group1: 5 videos (weird), such as row 0 "p0"' in said
    assert 'group2: 3 videos (gory), such as row 1 "p1"' in said
    (world.folder / "unsafe/pred_x0.json").unlink()
    assert world.build("--out_dir", world.folder / "bare") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "example prompts: none: pred_x0.json names no prompts" in said


def test_labels_that_look_counted_from_1_are_told(world, capsys):  # noqa: F811
    write_labels(world.labels, {"a": list(range(1, 7)), "b": list(range(5, 13))})
    assert world.build() == 0
    assert "all rows but row 0 are labelled" in capsys.readouterr().err
    write_labels(world.labels, {"a": list(range(1, 14))})
    refuses(world.build, capsys, "13 is out of range", "do your rows count from 1?")


def test_two_runs_at_once_are_refused(world, monkeypatch, capsys):  # noqa: F811
    """The labels are corrected while clips of the older ones are written."""
    write = build_x0.ClipWriter._write

    def correct_and_build(writer, row, paths):
        if row == 3:
            write_labels(world.labels, CORRECTED)
            refuses(world.build, capsys, "another build_x0.py writes here", "wait for it")
        return write(writer, row, paths)

    with monkeypatch.context() as patched:
        patched.setattr(build_x0.ClipWriter, "_write", correct_and_build)
        assert world.build() == 0
    assert world.build() == 0
    assert tree(world.data) == from_nothing(world)
