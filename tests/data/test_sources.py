"""Sources of clips: folders and recordings hand out the same, and detectors trained from either are
equal."""

import pickle
import threading
import time
from dataclasses import replace

import pytest
import torch
import yaml

import embed_model
import pretrain_mae
import train_mae
from lvd.data.clip_cache import StepReader, read_ahead
from lvd.data.labels import read_labels
from lvd.data.recorded_clips import RecordedClips
from lvd.data.sources import FolderClips, HeldOutFolders
from lvd.data.split import save_split
from lvd.detectors.detector import build_detector
from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch, sha256
from tests.worlds.recording_world import (
    FAST,
    LABELS,
    SHAPE,
    STEPS,
    RecordedWorld,
    all_same,
    record,
    write_labels,
)
from tests.worlds.refusals import refused
from tests.worlds.scripts import same_weights


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Read only: `grid` was trained from folders with one process."""
    world = RecordedWorld(tmp_path_factory.mktemp("recorded"))
    world.build()
    world.grid = world.root / "grid"
    assert world.train(world.grid, "--data_dir", world.root / "data", "--workers", 1) == 0
    return world


def test_recordings_hand_out_what_the_folders_hold(world):
    folders, held = FolderClips(world.root / "data"), HeldOutFolders(world.root)
    recorded = world.recorded()
    for name in ("representation", "steps", "groups", "categories", "made_by"):
        assert getattr(recorded, name) == getattr(folders, name), name
    assert recorded.made_by.items() >= held.made_by.items() and held.steps == recorded.steps
    for step in recorded.steps:
        for kind in ("unsafe", "normal"):
            rows = recorded.rows(kind, step)
            assert rows == folders.rows(kind, step) and held.rows(kind, step) == getattr(
                world.split, kind
            )
            some = [rows[5], rows[2], rows[7]]  # not in order
            expected = world.x0[kind][some, step].half()
            assert torch.equal(recorded.read(kind, some, step), expected)
            assert torch.equal(folders.read(kind, some, step), expected)
            assert torch.equal(
                held.read(kind, [getattr(world.split, kind)[1]], step),
                world.x0[kind][[getattr(world.split, kind)[1]], step].half(),
            )
        for group, rows in enumerate(LABELS.values(), 1):
            assert recorded.group_rows(group, step) == folders.group_rows(group, step) == rows
    assert recorded.clip_shape("unsafe", 3, 0) == folders.clip_shape("unsafe", 3, 0) == SHAPE


def test_a_copy_for_another_process_holds_no_recording(world):
    source = world.recorded()
    pickled = pickle.dumps(source)
    assert len(pickled) < 10_000
    assert torch.equal(pickle.loads(pickled).read("normal", [4], 2), source.read("normal", [4], 2))


def test_reading_in_parts_equals_reading_each(world, monkeypatch):
    """Step-major slices of any size, in the order asked for."""
    import lvd.data.recorded_clips

    rows = [9, 1, 21, 0, 13, 4, 17]
    each = torch.cat([world.x0["unsafe"][[row], 1].half() for row in rows])
    for at_once in (1, 3 * 256, 1 << 20):
        monkeypatch.setattr(lvd.data.recorded_clips, "VALUES_AT_ONCE", at_once)
        assert torch.equal(world.recorded().read("unsafe", rows, 1), each)
        doubled = world.recorded(representation="rgb", decode=lambda x: 2 * x[:, :3])
        assert torch.equal(doubled.read("unsafe", rows, 1), (2 * each[:, :3].float()).half())


def test_a_reader_reads_each_clip_once(world):
    class Counting(RecordedClips):
        seen = []

        def read(self, kind, rows, step, model=None):
            self.seen += [(kind, row, step) for row in rows]
            return super().read(kind, rows, step, model)

    source = Counting(
        *(world.root / kind / "pred_x0.pth" for kind in ("unsafe", "normal")),
        read_labels(world.labels),
    )
    config = build_detector(
        "nano", (4, 2, 6, 6), "latent", 0
    ).model.config  # half the frames, another size
    reader = StepReader(source, 2, config)
    first = reader.read({"unsafe": [3, 1, 2], "normal": [5]})
    again = reader.read({"unsafe": [2, 4], "normal": [5, 6]})
    assert sorted(source.seen) == [
        ("normal", 5, 2),
        ("normal", 6, 2),
        *(("unsafe", row, 2) for row in (1, 2, 3, 4)),
    ]
    assert (
        first.shape == (4, 4, 2, 6, 6)
        and torch.equal(first[2], again[0])
        and torch.equal(first[3], again[2])
    )
    fitted = torch.nn.functional.interpolate(
        world.x0["unsafe"][3, 2, :, 1].half().float()[None], (6, 6), mode="bilinear"
    )
    assert torch.allclose(first[0, :, 0].float(), fitted[0], atol=2e-3)


def test_the_next_is_loaded_while_one_is_worked_with():
    started, may_end = [], [threading.Event() for _ in range(3)]

    def load(item):
        started.append(item)
        assert may_end[item].wait(10)
        if item == 2:
            raise InputError("unreadable")
        return f"clips {item}"

    may_end[0].set()
    run = read_ahead(load, [0, 1, 2])
    assert next(run) == "clips 0"
    may_end[1].set()  # it is being loaded, or will be: nobody has to ask for it
    for _ in range(200):
        time.sleep(0.01)
        if 1 in started:
            break
    assert started == [0, 1]
    may_end[2].set()
    assert next(run) == "clips 1"
    with pytest.raises(InputError, match="unreadable"):
        next(run)
    assert list(read_ahead(load, [])) == []


def test_detectors_of_clips_read_ahead_are_the_same(world, tmp_path):
    from lvd.training.chunks import load_readers, train_chunk
    from lvd.training.job import Job
    from lvd.training.recipes import DEFAULT_CONFIG, read_settings

    settings = read_settings(DEFAULT_CONFIG, train_mae.build_parser().parse_args(FAST))
    jobs = [
        Job(
            world.recorded(),
            tmp_path,
            [step],
            {1: "first", 2: "second"},
            world.split,
            sha256(world.eval),
            settings,
        )
        for step in (0, 1)
    ]
    chunks = [[job] for job in jobs]
    for chunk, readers in zip(chunks, read_ahead(load_readers, chunks), strict=True):
        assert [row["group"] for row in train_chunk(chunk, readers)] == [1, 2]
    for name in ("1/0.pth", "2/0.pth", "1/1.pth", "2/1.pth"):
        assert same_weights(tmp_path / name, world.grid / name)


@pytest.mark.slow
def test_detectors_from_recordings_equal_those_from_folders(world, tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        flags = ["--recordings", world.config, "--workers", workers]
        assert world.train(tmp_path / name, *flags) == 0
        all_same(world.grid, tmp_path / name)
    # what is finished counts for both
    assert world.train(world.grid, "--recordings", world.config) == 0
    for name, flags in (("a", ["--data_dir", world.root]), ("b", ["--recordings", world.config])):
        assert (
            world.embed(world.grid, tmp_path / name, *flags, "--label_file_dir", world.labels) == 0
        )
    for name in ("results.pth", "scores.pth"):
        assert load_torch(tmp_path / "a" / name) == load_torch(tmp_path / "b" / name)
    assert (
        world.embed(world.grid, tmp_path / "a", "--recordings", world.config) == 0
    )  # the same votes, so the same folder
    tables = []
    for flags in (["--data_dir", world.root / "data"], ["--recordings", world.config]):
        assert world.train(world.grid, *flags, "--no-train") == 0
        tables.append((world.grid / "evaluation.csv").read_text())
    assert tables[0] == tables[1]


@pytest.mark.parametrize("broken", ["held out", "trained on"])
def test_held_out_rows_of_a_recording_are_never_read_in_training(world, tmp_path, capsys, broken):
    """A bare recording whose held-out rows are not even numbers trains the detectors that the whole
    one does."""
    paths = {}
    for kind, x0 in world.x0.items():
        x0, held = x0.half(), getattr(world.split, kind)
        rows = (
            held if broken == "held out" else [row for row in range(len(x0)) if row not in held][:1]
        )
        x0[rows] = float("nan")
        torch.save(x0, tmp_path / f"{kind}.pth")
        paths[kind] = tmp_path / f"{kind}.pth"
    config = tmp_path / "c.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "pred_x0": str(paths["unsafe"]),
                "normal_pred_x0": str(paths["normal"]),
                "label_file_dir": str(world.labels),
            }
        )
    )
    flags = ["--recordings", config, "--step_num", 1, "--workers", 1]
    if broken == "trained on":
        refused(
            world.train(tmp_path / "grid", *flags),
            capsys,
            "unsafe.pth: row",
            "step 1",
            "not finite",
        )
        return
    assert world.train(tmp_path / "grid", *flags) == 0
    for group in (1, 2):
        assert same_weights(
            tmp_path / "grid" / str(group) / "1.pth", world.grid / str(group) / "1.pth"
        )
    refused(
        world.train(tmp_path / "grid", *flags, "--no-train"),
        capsys,
        "unsafe.pth: row",
        "not finite",
    )


def test_bad_recordings(world, tmp_path, capsys):
    other = tmp_path / "other"
    refused(
        world.train(other, "--recordings", world.config, "--data_dir", world.root),
        capsys,
        "--data_dir",
        "--recordings",
    )
    refused(
        world.train(other, "--recordings", world.config, "--normal_video_dir", world.root),
        capsys,
        "--normal_video_dir",
    )
    refused(
        world.embed(world.grid, other, "--recordings", world.config, "--data_dir", world.root),
        capsys,
        "--data_dir",
    )
    refused(world.train(other, "--recordings", tmp_path / "none.yaml"), capsys, "none.yaml")
    refused(
        world.train(other, "--recordings", world.config, "--step_num", "3"), capsys, "--step_num 3"
    )
    for changes, words in (
        ({"normal_pred_x0": None}, ["normal_pred_x0"]),
        ({"pred_x0": "/none.pth"}, ["/none.pth", "run MagicTime/inference_magictime.py first"]),
        (
            {
                "pred_x0": str(world.root / "normal/pred_x0.pth"),
                "label_file_dir": str(
                    write_labels(tmp_path / "l.csv", {"first": [24], "second": [1]})
                ),
            },
            ["l.csv", "24"],
        ),
    ):
        config = tmp_path / "c.yaml"
        settings = yaml.safe_load(world.config.read_text())
        config.write_text(yaml.safe_dump({**settings, **changes}))
        refused(world.train(other, "--recordings", config), capsys, *words)
    # detectors of one recording on the clips of another, and labels without the held-out rows
    record(tmp_path / "pred_x0.pth", 22, 5, STEPS, dtype=torch.float16)
    config.write_text(yaml.safe_dump({**settings, "pred_x0": str(tmp_path / "pred_x0.pth")}))
    refused(world.embed(world.grid, other, "--recordings", config), capsys, "other recordings")
    few = write_labels(tmp_path / "few.csv", {"first": [0, 1], "second": [2]})
    config.write_text(yaml.safe_dump({**settings, "label_file_dir": str(few)}))
    save_torch({"unsafe": world.split.unsafe, "normal": world.split.normal}, tmp_path / "eval.pth")
    refused(
        world.embed(
            world.grid,
            other,
            "--recordings",
            config,
            "--eval_dir",
            tmp_path / "eval.pth",
            "--allow_other_eval",
        ),
        capsys,
        "few.csv",
        "held-out row",
    )
    assert not other.exists()


@pytest.mark.parametrize("script", [train_mae, pretrain_mae, embed_model])
def test_eval_pth_of_another_label_file_is_refused(world, tmp_path, capsys, script):
    other, flags = tmp_path / "other.pth", ["--save_dir", str(tmp_path / "out"), "--gpu_num", "-1"]
    save_split(replace(world.split, label_sha256="0" * 64), other)
    held = world.root if script is embed_model else world.root / "data"
    known_by = world.root / ("eval_set" if script is embed_model else "data") / "config.yaml"
    flags += (
        ["--model_dir", str(world.grid), "--allow_other_eval"]
        if script is embed_model
        else ["--size", "nano"]
    )
    refused(
        script.main(["--eval_dir", str(other), "--data_dir", str(held), *flags]),
        capsys,
        f"{other.name}: drawn from another label file",
        known_by.name,
        "gen_eval_set.py --renew",
    )
    if script is not pretrain_mae:  # which reads no labels beside recordings
        refused(
            script.main(["--eval_dir", str(other), "--recordings", str(world.config), *flags]),
            capsys,
            f"{other.name}: drawn from another label file",
            world.labels.name,
            "gen_eval_set.py --renew",
        )
    assert not (tmp_path / "out").exists()


def test_eval_pth_that_knows_no_label_file_stays_usable(world, tmp_path):
    """The paper's list, a dict without the hash, another label file's where no labels are read."""
    save_torch(world.split.unsafe, tmp_path / "list.pth")
    save_split(replace(world.split, label_sha256=None), tmp_path / "unknown.pth")
    save_split(replace(world.split, label_sha256="0" * 64), tmp_path / "other.pth")
    for name, data in (
        ("list", ["--data_dir", world.root / "data"]),
        ("unknown", ["--recordings", world.config]),
    ):
        assert (
            world.train(
                tmp_path / name,
                *data,
                "--eval_dir",
                tmp_path / f"{name}.pth",
                "--step_num",
                "0",
                "--group_num",
                "1",
                "--epoch",
                "1",
            )
            == 0
        )
    assert (
        world.embed(
            world.grid,
            tmp_path / "votes",
            "--data_dir",
            world.root,
            "--allow_other_eval",
            "--eval_dir",
            tmp_path / "unknown.pth",
        )
        == 0
    )
    assert (
        pretrain_mae.main(
            [
                "--recordings",
                str(world.config),
                "--eval_dir",
                str(tmp_path / "other.pth"),
                *FAST,
                "--save_dir",
                str(tmp_path / "pretrained"),
                "--epoch",
                "1",
            ]
        )
        == 0
    )


def test_recordings_that_are_not_whole_or_do_not_match(world, tmp_path):
    record(tmp_path / "part.pth", 24, 1, STEPS, whole=range(20), dtype=torch.float16)
    with pytest.raises(InputError, match=r"part.pth: 4 row\(s\) needed that are not recorded"):
        world.recorded(normal_pred_x0=tmp_path / "part.pth")
    record(tmp_path / "short.pth", 24, 1, STEPS - 1)
    with pytest.raises(InputError, match="short.pth.* sampled alike"):
        world.recorded(normal_pred_x0=tmp_path / "short.pth")
    with pytest.raises(InputError, match="no step 3"):
        world.recorded().need_rows("unsafe", [1], 3)
