"""Pre-training without labels through the real scripts, and detectors that start from it."""

import csv

import pytest
import torch

import pretrain_mae
import train_mae
from lvd.data.split import Split, load_split, save_split
from lvd.detectors.detector import build_detector
from lvd.detectors.pretrained import load_pretrained
from lvd.detectors.shared import build_shared
from lvd.errors import InputError
from lvd.training.augment import random_mask
from lvd.training.pretrain import build_pretraining, tube_mask
from lvd.utils.files import load_torch, save_torch, save_yaml, sha256
from tests.worlds.detector_world import HELD_NORMAL, HELD_UNSAFE, NORMAL, STEPS, make_world
from tests.worlds.recording_world import LABELS, RecordedWorld, write_labels
from tests.worlds.refusals import refused

FLAGS = ["--size", "nano", "--epoch", "12", "--batch_size", "16", "--gpu_num", "-1"]


def flags_of(world, save):
    where = {"--data_dir": world.data, "--eval_dir": world.eval, "--save_dir": save}
    return [str(word) for flag in where.items() for word in flag]


def pretrain(world, save, *flags):
    return pretrain_mae.main([*flags_of(world, save), *FLAGS, *flags])


def train(world, save, *flags):
    return train_mae.main([*flags_of(world, save), *FLAGS, "--epoch", "1", *flags])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("pretrain"))
    assert pretrain(world, world.root / "pretrained") == 0
    return world


@pytest.fixture(scope="module")
def encoder(world):
    return world.root / "pretrained" / "pretrained.pth"


def test_what_is_learnt_and_from_what(world, encoder):
    found = load_torch(encoder)
    assert all(key.startswith("videomae.") for key in found["state_dict"])
    about = found["about"]
    assert about["eval_sha256"] == sha256(world.eval) and about["steps"] == list(range(STEPS))
    assert about["rows"] == {
        "unsafe": sorted(set(range(22)) - set(HELD_UNSAFE)),
        "normal": sorted(set(range(NORMAL)) - set(HELD_NORMAL)),
    }
    with open(encoder.parent / "pretrained_curve.csv", newline="") as f:
        losses = [float(row["train_loss"]) for row in csv.DictReader(f)]
    assert len(losses) == 12 and losses[-1] < 0.8 * losses[0]


def test_held_out_clips_are_not_looked_at(world, encoder, tmp_path):
    """Garbage in their place changes nothing; garbage elsewhere is found."""
    place = [
        world.data / "normal" / "1" / f"{HELD_NORMAL[0]}.pt",
        world.data / "group1" / "1" / f"{HELD_UNSAFE[0]}.pt",
    ]
    good = [path.read_bytes() for path in place]
    for path in place:
        path.unlink()
        path.write_bytes(b"x")
    assert pretrain(world, tmp_path) == 0
    for path, content in zip(place, good, strict=True):
        path.write_bytes(content)
    one, two = (load_torch(path)["state_dict"] for path in (encoder, tmp_path / "pretrained.pth"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_detectors_start_from_it(world, encoder, tmp_path):
    """A learning rate of almost nothing leaves the encoder as it was: in the grid and in the shared
    detector."""
    state = load_torch(encoder)["state_dict"]
    assert (
        train(world, tmp_path / "grid", "--init", str(encoder), "--lr", "1e-9", "--step_num", "1")
        == 0
    )
    assert (
        train(
            world, tmp_path / "shared", "--init", str(encoder), "--lr", "1e-9", "--model", "shared"
        )
        == 0
    )
    for path in (tmp_path / "grid" / "2" / "1.pth", tmp_path / "shared" / "shared.pth"):
        found = load_torch(path)
        assert found["about"]["init"] == sha256(encoder)
        for key, value in state.items():
            torch.testing.assert_close(found["state_dict"][key], value, rtol=0, atol=1e-6)
    fresh = build_detector("nano", (4, 4, 4, 4), "latent", 0).model.state_dict()
    assert not torch.equal(
        state["videomae.encoder.layer.0.output.dense.weight"],
        fresh["videomae.encoder.layer.0.output.dense.weight"],
    )


def test_with_and_without_do_not_mix(world, encoder, tmp_path, capsys):
    assert train(world, tmp_path, "--step_num", "0") == 0
    refused(train(world, tmp_path, "--step_num", "0", "--init", str(encoder)), capsys, "init")
    (tmp_path / "train.yaml").unlink()
    refused(
        train(world, tmp_path, "--step_num", "0", "--init", str(encoder)), capsys, "1/0.pth", "init"
    )


def test_what_does_not_fit_is_refused(world, encoder, tmp_path, capsys):
    good = load_torch(encoder)
    refused(
        train(world, tmp_path, "--init", str(encoder), "--size", "tiny"),
        capsys,
        "pretrained.pth",
        "tubelet_size 4",
        "the detector has 2",
    )
    bad = tmp_path / "bad.pth"
    held = {**good["about"], "rows": {**good["about"]["rows"], "normal": HELD_NORMAL}}
    for content, words in (
        ({**good, "representation": "video"}, ["pretrained on video clips"]),
        ({**good, "about": {**good["about"], "eval_sha256": "0" * 64}}, ["another eval.pth"]),
        ({**good, "about": held}, ["held-out normal row 0"]),
        (
            {**good, "about": {**good["about"], "dataset": {"normal_pred_x0_made_by": "another"}}},
            ["other recordings", "more normal videos were recorded"],
        ),
        ({k: v for k, v in good.items() if k != "config"}, ["bad.pth: key 'config' is missing"]),
        ({"format": "x"}, ["not a pretrained encoder"]),
    ):
        save_torch(content, bad)
        for model in ("grid", "shared"):
            refused(
                train(world, tmp_path / "new", "--init", str(bad), "--model", model),
                capsys,
                "bad.pth",
                *words,
            )
    refused(
        train(world, tmp_path / "new", "--init", str(tmp_path / "none.pth")),
        capsys,
        "none.pth",
        "no such file",
    )
    assert not (tmp_path / "new").exists()


def test_another_rgb_matrix_is_refused(world, encoder):
    found, matrix = load_pretrained(encoder), [[0.5, 0.25, 0.0]] * 5
    found.about["dataset"]["rgb_matrix"] = matrix
    given = "latent", sha256(world.eval), load_split(world.eval)
    found.check(*given, {"rgb_matrix": matrix})
    found.check(*given, {})
    with pytest.raises(InputError, match="--init .*pretrained.pth: .* another rgb_matrix"):
        found.check(*given, {"rgb_matrix": [[0.5, 0.25, 0.125]] * 5})


def test_all_recorded_rows_are_used_without_labels(tmp_path, capsys):
    """Rows 16 to 21 stand in no column; then there is no label file at all."""
    world = RecordedWorld(tmp_path)
    write_labels(world.labels, {"first": range(8), "second": range(8, 16)})

    def run(save, *flags):
        return pretrain_mae.main(
            [
                "--recordings",
                str(world.config),
                "--eval_dir",
                str(world.eval),
                "--save_dir",
                str(save),
                "--size",
                "nano",
                "--epoch",
                "1",
                "--gpu_num",
                "-1",
                *flags,
            ]
        )

    assert run(tmp_path / "a") == 0
    about = load_torch(tmp_path / "a" / "pretrained.pth")["about"]
    assert about["rows"] == {
        "unsafe": sorted(set(range(22)) - set(world.split.unsafe)),
        "normal": sorted(set(range(24)) - set(world.split.normal)),
    }
    world.labels.unlink()
    found = load_torch(tmp_path / "a" / "pretrained.pth")
    found["about"]["dataset"]["label_sha256"] = "0" * 64  # as files made before say
    save_torch(found, tmp_path / "a" / "pretrained.pth")
    assert run(tmp_path / "a") == 0  # nothing has changed
    world.write_config(label_file_dir=None)
    assert run(tmp_path / "b") == 0
    one, two = (load_torch(tmp_path / name / "pretrained.pth") for name in "ab")
    assert all(
        torch.equal(one["state_dict"][key], value) for key, value in two["state_dict"].items()
    )
    flags = [
        "--recordings",
        str(world.config),
        "--eval_dir",
        str(world.eval),
        "--save_dir",
        str(tmp_path / "c"),
        "--gpu_num",
        "-1",
        "--size",
        "nano",
    ]
    capsys.readouterr()
    refused(
        train_mae.main(flags), capsys, "'label_file_dir' is missing"
    )  # detectors cannot do without
    write_labels(world.labels, LABELS)
    world.write_config()
    init = ["--init", str(tmp_path / "b" / "pretrained.pth"), "--epoch", "1", "--step_num", "0"]
    assert train_mae.main([*flags, *init]) == 0


def test_nothing_hidden_is_nothing_to_learn(world, tmp_path, capsys):
    refused(pretrain(world, tmp_path / "new", "--mask", "0"), capsys, "mask 0", "above 0")
    save_yaml({"size": "nano", "pretrain": {"mask": 0}}, tmp_path / "c.yaml")
    refused(
        pretrain(world, tmp_path / "new", "--config", str(tmp_path / "c.yaml")),
        capsys,
        "mask 0",
        "above 0",
    )


def test_everything_held_out_leaves_nothing(world, tmp_path, capsys):
    save_split(Split(list(range(22)), list(range(NORMAL))), tmp_path / "eval.pth")
    status = pretrain_mae.main(
        [
            "--data_dir",
            str(world.data),
            "--eval_dir",
            str(tmp_path / "eval.pth"),
            "--save_dir",
            str(tmp_path / "new"),
            *FLAGS,
        ]
    )
    refused(status, capsys, "no clips that are not held out")


def test_done_it_is_left_alone(world, encoder, capsys):
    before = encoder.read_bytes()
    assert pretrain(world, encoder.parent) == 0 and encoder.read_bytes() == before
    refused(
        pretrain(world, encoder.parent, "--mask", "0.5"),
        capsys,
        "pretrained.pth",
        "mask: 0.75 there, 0.5 now",
    )


def test_masks_hide_the_same_places_in_all_frames():
    config = build_pretraining("nano", (4, 8, 8, 8), "latent", 0).config  # 2 x 4 x 4 tokens
    hidden = tube_mask(config, 200, 0.75, torch.Generator().manual_seed(0))
    assert hidden.shape == (200, 32) and (hidden.sum(1) == 24).all()
    assert torch.equal(hidden[:, :16], hidden[:, 16:])
    assert (hidden.float().mean(0) - 0.75).abs().max() < 0.12 and len(hidden.unique(dim=0)) > 150
    assert random_mask(4, 3, 0.99, torch.Generator()).sum(1).tolist() == [
        3,
        3,
        3,
    ]  # something is always seen
    assert random_mask(4, 3, 0.01, torch.Generator()).sum(1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("size", ["nano", "tiny", "small"])
def test_encoders_fit_the_detectors_of_their_size(size):
    net = build_pretraining(size, (4, 8, 8, 8), "latent", 1)
    for model in (
        build_detector(size, (4, 8, 8, 8), "latent", 2).model,
        build_shared(size, (4, 8, 8, 8), "latent", 3, range(2), ["a"]).net,
    ):
        model.videomae.load_state_dict(net.videomae.state_dict())
    clips = torch.randn(2, 8, 4, 8, 8)
    assert net(clips, tube_mask(net.config, 2, 0.75, torch.Generator())).loss.isfinite()


def test_an_encoder_is_a_small_thing_to_hand_on(encoder):
    import pickle

    assert (
        len(pickle.dumps(load_pretrained(encoder))) < 20_000
    )  # processes that train get it without its weights
