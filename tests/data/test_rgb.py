"""rgb clips: the matrix against a plain product, the fit against matrices that are known, and the
whole path with it."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import build_x0
import fit_rgb
from lvd.data.clip_file import folder_representation, read_clip
from lvd.data.finished_clips import pixels_like
from lvd.data.rgb import SD1, LatentToRGB, LeastSquares, load_rgb, save_rgb
from lvd.data.sources import FolderClips, HeldOutFolders
from lvd.data.split import save_split
from lvd.errors import InputError
from lvd.utils import processes
from lvd.utils.files import fingerprint, load_torch, load_yaml, sha256
from lvd.utils.video import write_mp4
from lvd.x0.file import open_x0_file
from MagicTime.utils.clip_sources import open_recordings
from MagicTime.utils.vae_decoder import VaeDecoder, model_paths
from tests.worlds import magictime_world
from tests.worlds.recording_world import (  # noqa: F401 (a fixture)
    SHAPE,
    STEPS,
    RecordedWorld,
    all_same,
    decoded,
    magictime,
    record,
)
from tests.worlds.refusals import refused

KNOWN = LatentToRGB(
    ((0.5, -0.25, 0.125), (0.0, 1.0, -0.5), (0.75, 0.25, 0.0), (-0.125, 0.0, 0.25)),
    (0.1, -0.2, 0.3),
)


def latents(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rgb_is_the_matrix_product():
    x = latents(2, 4, 3, 5, 6)
    for rgb in (LatentToRGB(), KNOWN):
        numbers = np.array(rgb.numbers)
        expected = np.moveaxis(
            np.moveaxis(x.numpy().astype(float), 1, -1) @ numbers[:4] + numbers[4], -1, 1
        )
        assert rgb(x).shape == (2, 3, 3, 5, 6) and np.allclose(rgb(x).numpy(), expected, atol=1e-6)
        assert torch.equal(
            torch.cat([rgb(part) for part in x.split(1)]), rgb(x)
        )  # to the bit, whatever the batch
        assert torch.equal(rgb(x[0]), rgb(x)[0])
    one = torch.zeros(4, 1, 1, 1)
    one[2] = 1
    assert LatentToRGB()(one).flatten().tolist() == pytest.approx(
        [-0.2829, 0.1762, 0.2721]
    )  # the published third row
    with pytest.raises(InputError, match="4 latent channels, these latents have 16"):
        KNOWN(latents(1, 16, 2, 2, 2))


def test_least_squares_recover_the_matrix():
    """Of pixels that the matrix itself made, in parts and enlarged to 8 x 8 a latent; noise takes
    its share of R2."""
    fit, noisy = LeastSquares(), LeastSquares()
    for seed in range(3):
        x = 0.3 * latents(4, 4, 2, 6, 6, seed=seed)
        pixels = (KNOWN(x) + 1) / 2
        fit.add(x, pixels.repeat_interleave(8, -1).repeat_interleave(8, -2))
        noisy.add(
            x,
            pixels
            + 0.5
            * 0.2
            * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(9 + seed)),
        )
    found = fit.solve()
    assert np.allclose(found.numbers, KNOWN.numbers, atol=1e-5)
    assert fit.r2(found) == pytest.approx(
        {"r2": 1, "r2_red": 1, "r2_green": 1, "r2_blue": 1}, abs=1e-4
    )
    assert fit.r2(LatentToRGB())["r2"] < 0.9
    signal = 0.09 * np.square(KNOWN.numbers[:4]).sum(
        0
    )  # variance of each colour; that of the noise is 0.04
    expected = dict(zip(("r2_red", "r2_green", "r2_blue"), signal / (signal + 0.04), strict=True))
    expected["r2"] = signal.sum() / (signal.sum() + 3 * 0.04)
    assert noisy.r2(noisy.solve()) == pytest.approx(expected, abs=0.05)


def test_fit_equals_numpys_least_squares():
    x, pixels = (
        latents(5, 4, 2, 3, 4),
        torch.rand(5, 3, 2, 12, 16, generator=torch.Generator().manual_seed(1)),
    )
    fit = LeastSquares()
    fit.add(x[:2], pixels[:2])
    fit.add(x[2:], pixels[2:])
    small = (
        2
        * pixels.unflatten(-1, (4, 4))
        .unflatten(-3, (3, 4))
        .mean((-1, -3))
        .movedim(1, -1)
        .reshape(-1, 3)
        .numpy()
        - 1
    )
    inputs = np.hstack([x.movedim(1, -1).reshape(-1, 4).numpy(), np.ones((120, 1))])
    weights, left, *_ = np.linalg.lstsq(inputs, small, rcond=None)
    assert np.allclose(fit.solve().numbers, weights, atol=1e-5)
    total = ((small - small.mean(0)) ** 2).sum(0)
    assert list(fit.r2(fit.solve()).values()) == pytest.approx(
        [1 - left.sum() / total.sum(), *(1 - left / total)], abs=1e-4
    )


def test_matrix_files(tmp_path):
    save_rgb(LatentToRGB(KNOWN.matrix, KNOWN.bias, {"r2": 0.5}), tmp_path / "m.json")
    found = load_rgb(tmp_path / "m.json")
    assert (
        found == KNOWN and found.about == {"r2": 0.5} and pickle.loads(pickle.dumps(found)) == KNOWN
    )
    assert load_rgb().matrix == SD1 and load_rgb() != found
    for text in (
        "[]",
        "{}",
        '{"matrix": [], "bias": [0, 0, 0]}',
        '{"matrix": [[1, 2]], "bias": [0, 0, 0]}',
        '{"matrix": [[1, 2, 3]]}',
        '{"matrix": [[1, 2, "x"]], "bias": [0, 0, 0]}',
        '{"matrix": [[1, 2, NaN]], "bias": [0, 0, 0]}',
        "{",
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="bad.json"):
            load_rgb(tmp_path / "bad.json")


# --- fit_rgb.py


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Recordings, labels and eval.pth, to be built as rgb with a matrix of our own."""
    world = RecordedWorld(tmp_path_factory.mktemp("rgb"))
    save_rgb(KNOWN, world.root / "known.json")
    world.write_config(representation="rgb", rgb_matrix=str(world.root / "known.json"))
    return world


@pytest.fixture(autouse=True)
def no_default_eval(tmp_path, monkeypatch):
    """MagicTime/eval.pth is the checkout's own, and not always there."""
    monkeypatch.setattr(fit_rgb, "DEFAULT_EVAL", tmp_path / "default" / "eval.pth")


def fit(world, save, *flags):
    return fit_rgb.main(
        [
            "--recordings",
            str(world.config),
            "--save_path",
            str(save),
            "--gpu_num",
            "-1",
            *map(str, flags),
        ]
    )


def test_fit_rgb_on_decoded_frames(world, magictime, tmp_path, capsys):  # noqa: F811
    """Against least squares over every frame of both recordings, decoded here."""
    config, vae = magictime
    world.write_config(sample_config=str(config))
    assert fit(world, tmp_path / "all.json", "--frames", 10**6) == 0
    assert "r2" in capsys.readouterr().out
    x = torch.cat(
        [x0.half().float().flatten(0, 1) for x0 in world.x0.values()]
    )  # [N * S, 4, F, h, w]
    pixels = torch.stack([decoded(vae, clip) for clip in x])
    small = (
        2 * torch.nn.functional.avg_pool3d(pixels, (1, 8, 8)).movedim(1, -1).reshape(-1, 3).numpy()
        - 1
    )
    inputs = np.hstack([x.movedim(1, -1).reshape(-1, 4).numpy(), np.ones((len(small), 1))])
    found = json.loads((tmp_path / "all.json").read_text())
    weights, left, *_ = np.linalg.lstsq(inputs.astype(float), small.astype(float), rcond=None)
    assert np.allclose([*found["matrix"], found["bias"]], weights, atol=1e-3)
    assert found["r2"] == pytest.approx(
        1 - left.sum() / ((small - small.mean(0)) ** 2).sum(), abs=2e-3
    )
    assert found["made_by"]["frames"] == len(x) * 4 and found["made_by"]["vae_sha256"]
    # some frames, the same ones every time; others with another seed
    for name, flags in (("a", []), ("b", []), ("c", ["--seed", 7])):
        assert fit(world, tmp_path / f"{name}.json", "--frames", 50, *flags) == 0
    a, b, c = ((tmp_path / f"{name}.json").read_bytes() for name in "abc")
    assert a == b != c


def test_frames_are_drawn_from_all_rows_but_the_held_out(world):
    files = [open_x0_file(world.root / kind / "pred_x0.pth") for kind in ("unsafe", "normal")]
    rows = [[0, 5], [7]]
    assert fit_rgb.draw_frames(files, rows, 10**6, 0) == [
        (k, row, step, frame)
        for k, row in ((0, 0), (0, 5), (1, 7))
        for step in range(STEPS)
        for frame in range(4)
    ]
    some = fit_rgb.draw_frames(files, rows, 20, 0)
    assert len(set(some)) == 20 and some == sorted(some)
    with pytest.raises(InputError, match="held out"):
        fit_rgb.draw_frames(files, [[], []], 1, 0)


def test_fit_rgb_never_looks_at_held_out_rows(world, magictime, tmp_path, capsys):  # noqa: F811
    paths = {}
    for kind, x0 in world.x0.items():
        x0 = x0.clone()
        x0[getattr(world.split, kind)] = float("nan")
        torch.save(x0, tmp_path / f"{kind}.pth")
        paths[kind] = str(tmp_path / f"{kind}.pth")
    world.write_config(
        sample_config=str(magictime[0]), pred_x0=paths["unsafe"], normal_pred_x0=paths["normal"]
    )
    assert fit(world, tmp_path / "a.json", "--frames", 300, "--eval_dir", world.eval) == 0
    assert json.loads((tmp_path / "a.json").read_text())["made_by"]["eval_sha256"] == sha256(
        world.eval
    )
    refused(
        fit(world, tmp_path / "b.json", "--frames", 10**6), capsys, "unsafe.pth: row", "not finite"
    )
    assert not (tmp_path / "b.json").exists()


def test_fit_rgb_defaults(world, magictime, tmp_path, capsys):  # noqa: F811
    """The default eval.pth is held out, if it is there and belongs to the recordings; the matrix
    never goes to the base model, whose files identify recordings."""

    def run(*flags, **changes):
        world.write_config(sample_config=str(magictime[0]), **changes)
        return fit_rgb.main(
            [
                "--recordings",
                str(world.config),
                "--gpu_num",
                "-1",
                "--frames",
                "20",
                *map(str, flags),
            ]
        )

    base = model_paths(magictime[0])["pretrained_model_path"]
    before = fingerprint(base)
    assert run(out_dir=str(tmp_path / "home/data")) == 0
    assert "held out: nothing" in " ".join(capsys.readouterr().out.split())
    assert (
        json.loads((tmp_path / "home/latent_rgb.json").read_text())["made_by"]["eval_sha256"]
        is None
    )
    fit_rgb.DEFAULT_EVAL.parent.mkdir()
    shutil.copy(world.eval, fit_rgb.DEFAULT_EVAL)
    assert run(rgb_matrix=str(tmp_path / "named.json")) == 0
    assert f"held out: rows of {fit_rgb.DEFAULT_EVAL}" in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "named.json").read_text())["made_by"]["eval_sha256"] == sha256(
        world.eval
    )
    refused(run("--save_path", base / "rgb.json"), capsys, "--save_path", "inside the base model")
    refused(run(rgb_matrix=str(base / "rgb.json")), capsys, "rgb_matrix", "inside the base model")
    save_split(replace(world.split, label_sha256="0" * 64), fit_rgb.DEFAULT_EVAL)
    refused(
        run(rgb_matrix=str(tmp_path / "other.json")),
        capsys,
        "default/eval.pth: drawn from another label file",
        str(world.labels),
    )
    assert fingerprint(base) == before and not (tmp_path / "other.json").exists()


@pytest.mark.parametrize(
    ("clip_frames", "latent_frames", "means"),
    [
        (9, 3, [[0], [1, 2, 3, 4], [5, 6, 7, 8]]),  # a causal autoencoder: the first frame alone
        (4, 4, [[0], [1], [2], [3]]),
        (8, 4, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (5, 1, [[0, 1, 2, 3, 4]]),
    ],
)
def test_clips_are_averaged_down_to_latents(tmp_path, clip_frames, latent_frames, means):
    grey = np.linspace(20, 220, clip_frames).round().astype(np.uint8)
    clip = np.broadcast_to(grey[:, None, None, None], (clip_frames, 16, 32, 3))
    write_mp4(tmp_path / "0000.mp4", clip)
    pixels = pixels_like(tmp_path / "0000.mp4", (latent_frames, 2, 4))
    assert pixels.shape == (3, latent_frames, 2, 4)
    expected = [np.mean([grey[k] for k in frames]) / 255 for frames in means]
    assert pixels[0, :, 0, 0].tolist() == pytest.approx(expected, abs=0.02)


def test_fit_rgb_on_finished_clips(tmp_path, capsys):
    """Clips of a known matrix, for a YAML that names no model; held-out rows are not looked at."""
    world = RecordedWorld(tmp_path / "world")
    world.write_config()
    save_with = {kind: open_x0_file(world.root / kind / "pred_x0.pth") for kind in world.x0}
    for x0 in save_with.values():
        for row in x0.rows:
            colours = (KNOWN(0.3 * x0.tensor[row, -1].float()) / 2 + 0.5).clamp(0, 1)
            frames = (255 * colours).byte().movedim(0, -1).numpy().repeat(8, 1).repeat(8, 2)
            write_mp4(x0.path.parent / "videos" / f"{row:04d}.mp4", frames, crf=0)
    held = world.root / "unsafe" / "videos" / f"{world.split.unsafe[0]:04d}.mp4"
    held.write_bytes(held.read_bytes()[:40])  # begins as a clip does, and is none
    flags = ("--videos", "--eval_dir", world.eval)
    assert fit(world, tmp_path / "a.json", *flags) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert np.allclose(np.array(found["matrix"]), 0.3 * np.array(KNOWN.matrix), atol=0.02)
    assert np.allclose(found["bias"], KNOWN.bias, atol=0.02) and found["r2"] > 0.9
    assert found["made_by"]["vae_sha256"] is None
    refused(fit(world, tmp_path / "b.json", "--videos"), capsys, held.name, "not a readable video")
    refused(fit(world, tmp_path / "b.json"), capsys, "'sample_config' is missing", "--videos")
    for kind in world.x0:
        shutil.rmtree(world.root / kind / "videos")
    refused(fit(world, tmp_path / "b.json", "--videos"), capsys, "--videos", "0000.mp4")
    assert not (tmp_path / "b.json").exists()


def test_bad_input_to_fit_rgb(world, magictime, tmp_path, capsys):  # noqa: F811
    world.write_config()
    refused(fit(world, tmp_path / "a.json"), capsys, "'sample_config' is missing")
    world.write_config(sample_config=str(magictime[0]))
    refused(fit(world, tmp_path / "a.json", "--frames", 0), capsys, "--frames 0")
    refused(fit(world, tmp_path / "a.json", "--seed", -1), capsys, "--seed -1: a whole number")
    record(tmp_path / "short.pth", 24, 1, STEPS - 1)
    world.write_config(sample_config=str(magictime[0]), normal_pred_x0=str(tmp_path / "short.pth"))
    refused(fit(world, tmp_path / "a.json"), capsys, "short.pth", "sampled alike")
    torch.save(torch.randn(3, STEPS, 8, 4, 4, 4), tmp_path / "wide.pth")
    world.write_config(
        sample_config=str(magictime[0]), pred_x0=str(tmp_path / "wide.pth"), normal_pred_x0=None
    )
    refused(fit(world, tmp_path / "a.json"), capsys, "latent_channels 8")
    assert not (tmp_path / "a.json").exists()


# --- the whole path


@pytest.fixture
def rgb_world(world):
    world.write_config(representation="rgb", rgb_matrix=str(world.root / "known.json"))
    if not (world.root / "data").exists():
        world.build()
    return world


def test_rgb_clips_hold_the_product_of_the_recording(rgb_world):
    world, data = rgb_world, rgb_world.root / "data"
    stored = torch.load(data / "group1/2/3.pt", weights_only=True)
    expected = KNOWN(world.x0["unsafe"][3, 2].half().float())
    assert (
        stored.dtype == torch.float16
        and stored.shape == (3, *SHAPE[1:])
        and torch.equal(stored, expected.half())
    )
    assert stored.untyped_storage().nbytes() == stored.numel() * 2
    assert folder_representation(data) == folder_representation(world.root / "eval_set") == "rgb"
    assert load_yaml(data / "config.yaml")["rgb_matrix"] == KNOWN.numbers
    folders, held, recorded = (
        FolderClips(data),
        HeldOutFolders(world.root),
        open_recordings(world.config, "cpu"),
    )
    assert folders.made_by == recorded.made_by and recorded.made_by.items() >= held.made_by.items()
    assert held.made_by["rgb_matrix"] == KNOWN.numbers
    for step in range(STEPS):
        assert torch.equal(
            folders.read("normal", [4, 1, 9], step), recorded.read("normal", [4, 1, 9], step)
        )


@pytest.mark.slow
def test_rgb_detectors_from_folders_and_recordings_are_equal(rgb_world, tmp_path, capsys):
    world = rgb_world
    assert world.train(tmp_path / "a", "--data_dir", world.root / "data", "--workers", 1) == 0
    assert world.train(tmp_path / "b", "--recordings", world.config, "--workers", 1) == 0
    all_same(tmp_path / "a", tmp_path / "b")
    about = load_torch(tmp_path / "a/1/0.pth")
    assert (
        about["representation"] == "rgb"
        and about["about"]["dataset"]["rgb_matrix"] == KNOWN.numbers
    )
    assert about["config"]["num_channels"] == 3 and about["mean"] != [0.485, 0.456, 0.406]
    for name, flags in (("x", ["--data_dir", world.root]), ("y", ["--recordings", world.config])):
        assert world.embed(tmp_path / "a", tmp_path / name, *flags) == 0
    assert load_torch(tmp_path / "x/results.pth") == load_torch(tmp_path / "y/results.pth")
    # another matrix is another dataset, and its frames are not what these detectors read
    world.write_config(representation="rgb")
    refused(
        world.embed(tmp_path / "a", tmp_path / "z", "--recordings", world.config),
        capsys,
        "another rgb_matrix",
    )
    refused(
        world.train(tmp_path / "a", "--recordings", world.config, "--no-train"),
        capsys,
        "another rgb_matrix",
    )
    refused(
        world.train(tmp_path / "a", "--recordings", world.config),
        capsys,
        "train.yaml: after this folder was made, the matrix that makes frames of latents changed",
    )
    refused(
        build_x0.main(["--config", str(world.config)]), capsys, "config.yaml: after", "the matrix"
    )
    world.write_config()
    refused(
        world.embed(tmp_path / "a", tmp_path / "z", "--recordings", world.config),
        capsys,
        "reads rgb",
        "latent",
    )
    refused(build_x0.main(["--config", str(world.config)]), capsys, "representation")


def test_rgb_needs_a_matrix_that_fits(world, tmp_path, capsys):
    torch.save(torch.randn(22, STEPS, 8, 4, 4, 4), tmp_path / "wide.pth")
    world.write_config(representation="rgb", pred_x0=str(tmp_path / "wide.pth"))
    refused(
        world.train(tmp_path / "a", "--recordings", world.config),
        capsys,
        "these latents have 8",
        "fit_rgb.py",
    )
    world.write_config(representation="rgb", rgb_matrix=str(tmp_path / "none.json"))
    refused(
        build_x0.main(["--config", str(world.config), "--out_dir", str(tmp_path / "d")]),
        capsys,
        "none.json",
    )
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump({"video_format": "gif", "pred_x0": "x", "label_file_dir": "y"})
    )
    refused(
        build_x0.main(["--config", str(tmp_path / "c.yaml")]), capsys, "video_format", "mp4 or pt"
    )


# --- videos without loss


@pytest.fixture
def one_thread():
    """Decoded frames may differ in their last bit with the number of threads, and workers decode
    with one."""
    with processes.one_thread():
        yield


@pytest.mark.slow
def test_lossless_videos_hold_the_decoded_frames_and_train_what_recordings_train(
    magictime,
    tmp_path,
    capsys,  # noqa: F811
    one_thread,
):
    config, vae = magictime
    world = RecordedWorld(tmp_path)
    world.write_config(representation="video", video_format="pt", sample_config=str(config))
    world.build()
    stored = torch.load(tmp_path / "data/group2/1/15.pt", weights_only=True)
    expected = decoded(vae, world.x0["unsafe"][15, 1].half().float())
    assert stored.dtype == torch.uint8 and stored.shape == (3, 4, 32, 32)
    assert (stored.float() - (expected * 255).floor()).abs().max() <= 1
    clip = read_clip(tmp_path / "data/group2/1/15.pt", "video")
    assert (
        torch.equal(clip, stored.float() / 255)
        and folder_representation(tmp_path / "data") == "video"
    )
    few = ["--epoch", 1]
    assert world.train(tmp_path / "a", "--data_dir", tmp_path / "data", "--workers", 1, *few) == 0
    assert world.train(tmp_path / "b", "--recordings", world.config, "--workers", 2, *few) == 0
    all_same(tmp_path / "a", tmp_path / "b")
    for name, flags in (("x", ["--data_dir", tmp_path]), ("y", ["--recordings", world.config])):
        assert world.embed(tmp_path / "a", tmp_path / name, *flags) == 0
    assert load_torch(tmp_path / "x/results.pth") == load_torch(tmp_path / "y/results.pth")
    # one dataset holds one kind of file, and no latents among its frames
    world.write_config(representation="video", sample_config=str(config))
    refused(
        build_x0.main(["--config", str(world.config), "--gpu_num", "-1"]), capsys, "video_format"
    )
    torch.save(torch.zeros(3, 4, 4, 4).half(), tmp_path / "data/group1/0/3.pt")
    flags = ["--data_dir", tmp_path / "data", "--step_num", 0]
    refused(
        world.train(tmp_path / "c", *flags), capsys, "3.pt", "video clip uint8", "torch.float16"
    )
    (tmp_path / "data/group1/0/99.mp4").write_bytes(b"")
    refused(world.train(tmp_path / "c", *flags), capsys, "mixed")


def test_the_shipped_matrix_belongs_to_the_shipped_model():
    """Its autoencoder's weights, R2 of a fit on a few frames of noise-free clips: see provenance
    inside."""
    path = magictime_world.ROOT / "MagicTime/ckpts/Tiny/latent_rgb.json"
    rgb = load_rgb(path)
    decoder = VaeDecoder(model_paths(magictime_world.ROOT / "MagicTime/sample_configs/Tiny.yaml"))
    assert (
        rgb.about["made_by"]["vae_sha256"] == decoder.sha256 and rgb.about["made_by"]["eval_sha256"]
    )
    assert load_yaml(magictime_world.ROOT / "build_x0.yaml")["rgb_matrix"] == str(
        path.relative_to(magictime_world.ROOT)
    )
    assert 0.5 < rgb.about["r2"] < 1
