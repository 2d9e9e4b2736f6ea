"""What must not be mixed: unsafe and normal videos that were sampled differently, one recording as
both, and words of the command line that name nothing or change nothing."""

import json
import os
import shutil

import pytest
import torch
import yaml

import build_eval_set
import build_x0
import fit_rgb
import gen_eval_set
import train_mae
from lvd.data.identity import need_other_videos
from lvd.data.sources import FolderClips
from lvd.errors import InputError
from lvd.x0.alike import need_alike, recorded_setup
from lvd.x0.file import create_x0_file, open_x0_file
from lvd.x0.provenance import difference_of
from tests.worlds.recording_world import magictime, write_labels  # noqa: F401
from tests.worlds.refusals import refused

SHAPE, ROWS = (2, 4, 2, 4, 4), 8  # steps, C, F, h, w
HASH = "(0123456789abcdef)"
CONFIG = {
    "guidance_scale": 7.5,
    "dtype": "float16",
    "motion_module": f"ckpts/motion.ckpt {HASH}",
    "prompts_sha256": "of the unsafe ones",
    "seed": [1],
    "n_prompt": [""],
    "unet": {"heads": 8},
    "noise_scheduler_kwargs": {"beta_start": 0.00085, "clip_sample": False},
}
META = {"config": CONFIG, "x0_mode": "true", "scaling_factor": 0.18, "versions": {"torch": "1"}}
TIMESTEPS = [981, 481]


def write(path, seed, meta=META, dtype=torch.float16, shape=SHAPE, infos=None, rows=ROWS):
    """Write a recording; infos: {row: what its sidecar says beside the timesteps}."""
    draw = torch.Generator().manual_seed(seed)
    with create_x0_file(path, rows, shape[0], shape[1:], dtype, meta) as writer:
        for row in range(rows):
            info = {"timesteps": TIMESTEPS, **(infos or {}).get(row, {})}
            writer.write_row(row, torch.randn(shape, generator=draw), info)
    return path


def changed(meta=None, config=None):
    """META with other keys; `...` leaves one out."""
    config = {**CONFIG, **(config or {})}
    merged = {**META, "config": {k: v for k, v in config.items() if v is not ...}, **(meta or {})}
    return {key: value for key, value in merged.items() if value is not ...}


class Home:
    """The unsafe recording, labels and a build_x0.yaml in a folder."""

    def __init__(self, folder):
        self.folder, self.config = folder, folder / "b.yaml"
        self.unsafe = write(folder / "unsafe" / "pred_x0.pth", 1)
        self.labels = write_labels(folder / "label.csv", {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]})

    def scripts(self, tmp_path, normal, unsafe=None):
        """Yield runs of the scripts that learn from both recordings."""
        settings = {
            "pred_x0": str(unsafe or self.unsafe),
            "normal_pred_x0": str(normal),
            "label_file_dir": str(self.labels),
            "out_dir": str(tmp_path / "data"),
        }
        config, split = tmp_path / "b.yaml", tmp_path / "eval.pth"
        config.write_text(yaml.safe_dump(settings))
        torch.save({"unsafe": [0, 4], "normal": [0, 1]}, split)
        yield lambda: build_x0.main(["--config", str(config)])
        flags = ["--recordings", config, "--eval_dir", split, "--save_dir", tmp_path / "d"]
        flags += ["--size", "nano", "--gpu_num", -1, "--epoch", 1, "--step_num", 0]
        yield lambda: train_mae.main([*map(str, flags), "--group_num", "1", "--workers", "1"])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("home"))


DIFFERENT = [
    (
        changed(config={"noise_scheduler_kwargs": {"beta_start": 0.00085, "clip_sample": True}}),
        ["scheduler: clip_sample True", "with False"],
    ),
    (
        changed(config={"noise_scheduler_kwargs": {"beta_start": 0.00085}}),
        ["scheduler: clip_sample True", "with False"],  # it is DDIM's default
    ),
    (
        changed({"scheduler": {"class": "EulerDiscreteScheduler"}}),
        ["scheduler: class 'EulerDiscreteScheduler'", "with 'DDIMScheduler'"],
    ),
    (changed({"x0_mode": "released"}), ["x0_mode 'released'", "with 'true'"]),
    (changed({"scaling_factor": 0.13}), ["scaling_factor 0.13", "with 0.18"]),
    (changed(config={"guidance_scale": 1.0}), ["guidance_scale 1.0", "with 7.5"]),
    (changed(config={"dtype": "float32"}), ["dtype 'float32'", "with 'float16'"]),
    (changed(config={"unet": {"heads": 4}}), ["unet: heads 4", "with 8"]),
    (
        changed(config={"safe_guidance": "max", "safety_concept": "red"}),
        ["safe_guidance 'max'", "with 'none'"],
    ),
    (
        changed(config={"motion_module": "ckpts/motion.ckpt (fedcba9876543210)"}),
        ["motion_module 'ckpts/motion.ckpt (fedcba9876543210)'", HASH],
    ),
    (changed(config={"motion_module": ""}), ["motion_module ''", HASH]),
]


@pytest.mark.parametrize("meta, said", DIFFERENT)
def test_recordings_that_were_sampled_differently(home, tmp_path, capsys, meta, said):
    normal = write(tmp_path / "normal" / "pred_x0.pth", 2, meta)
    for run in home.scripts(tmp_path, normal):
        refused(run(), capsys, "normal/pred_x0.pth", "unsafe/pred_x0.pth", "sampled alike", *said)
        assert not (tmp_path / "data").exists() and not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "key, one, other, found",
    [
        ("unet", {"heads": None}, {}, None),
        ("scheduler", {"class": "Mine", "shift": None}, {"class": "Mine"}, None),
        ("scheduler", {}, {"class": "Mine"}, ("scheduler: class", "None", "'Mine'")),
        ("scheduler", "DDIM", {"class": ["x"]}, ("scheduler", "'DDIM'", "{'class': ['x']}")),
    ],
)
def test_descriptions_with_gaps(key, one, other, found):
    """A key that is missing counts as None. Facts of a row are not checked by a schema."""
    assert difference_of(key, one, other) == found


def test_what_only_one_of_them_says_is_told(home, tmp_path, capsys):
    normal = write(tmp_path / "normal" / "pred_x0.pth", 2, changed({"pipeline": "WanPipeline"}))
    build, _ = home.scripts(tmp_path, normal)
    assert build() == 0
    assert "unsafe/pred_x0.pth does not say its pipeline" in capsys.readouterr().out


@pytest.mark.parametrize(
    "infos, said",
    [
        (
            {row: {"timesteps": [999, 499]} for row in range(ROWS)},
            ["timesteps [999, 499]", "with [981, 481]"],
        ),
        (
            {3: {"timesteps": [999, 499]}},
            ["row 3 was sampled at timesteps [999, 499]", "row 0 at [981, 481]"],
        ),
        (
            {2: {"guidance_scale": 3.0}, 5: {"guidance_scale": 4.0}},
            ["row 2 was sampled with guidance_scale 3.0", "the recording has 7.5"],
        ),
        ({2: {"model": "Wan"}, 5: {"model": "LTX"}}, ["row 5", "model 'LTX'", "row 2 has 'Wan'"]),
    ],
)
def test_rows_that_were_sampled_differently(home, tmp_path, capsys, infos, said):
    normal = write(tmp_path / "normal" / "pred_x0.pth", 2, infos=infos)
    for run in home.scripts(tmp_path, normal):
        refused(run(), capsys, str(normal), *said)


def test_the_dtype_of_the_files_must_be_the_same(home, tmp_path, capsys):
    normal = write(tmp_path / "normal" / "pred_x0.pth", 2, dtype=torch.float32)
    for run in home.scripts(tmp_path, normal):
        refused(run(), capsys, str(normal), "x0_dtype 'float32'", "with 'float16'")


def test_prompts_seeds_versions_and_places_may_differ(home, tmp_path, capsys):
    config = {"seed": [5], "prompts_sha256": "of the normal ones", "n_prompt": ["bad"]}
    config["motion_module"] = f"/elsewhere/motion.ckpt {HASH}"
    meta = changed({"versions": {"torch": "2"}, "prompts_sha256": "x"}, config)
    normal = write(tmp_path / "normal" / "pred_x0.pth", 2, meta)
    build, _ = home.scripts(tmp_path, normal)
    assert build() == 0 and "alike" not in capsys.readouterr().out


def test_a_bare_recording_is_taken_and_what_is_not_known_is_said(home, tmp_path, capsys):
    draw = torch.Generator().manual_seed(3)
    bare = {}
    for kind in ("unsafe", "normal"):
        bare[kind] = tmp_path / kind / "pred_x0.pth"
        bare[kind].parent.mkdir()
        torch.save(torch.randn(ROWS, *SHAPE, generator=draw).half(), bare[kind])
    for run in home.scripts(tmp_path, bare["normal"]):
        assert run() == 0
        said = "normal/pred_x0.pth does not say its x0_mode, scheduler, timesteps"
        assert said in capsys.readouterr().out
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / "d")
    build, _ = home.scripts(tmp_path, bare["normal"], bare["unsafe"])  # as in the paper
    assert build() == 0 and "does not say" not in capsys.readouterr().out


def test_normal_clips_of_another_dataset_are_compared_too(home, tmp_path, capsys):
    other = changed(config={"guidance_scale": 1.0})
    for name, meta, seed in (("one", META, 2), ("two", other, 4)):
        folder = tmp_path / name
        normal = write(folder / "normal" / "pred_x0.pth", seed, meta)
        unsafe = write(folder / "unsafe" / "pred_x0.pth", seed + 1, meta)
        assert next(home.scripts(folder, normal, unsafe))() == 0
    with pytest.raises(InputError, match="guidance_scale 1.0, one/data with 7.5"):
        FolderClips(tmp_path / "one/data", tmp_path / "two/data/normal")
    assert FolderClips(tmp_path / "one/data", tmp_path / "one/data/normal").note == ""
    shutil.rmtree(tmp_path / "two/data/normal/0")
    (tmp_path / "two/data/config.yaml").unlink()
    note = FolderClips(tmp_path / "one/data", tmp_path / "two/data/normal").note
    assert "two/data/normal does not say its" in note or "data/normal does not say its" in note


def test_a_setup_agrees_with_itself_and_with_what_is_left_out(home):
    setup = recorded_setup(open_x0_file(home.unsafe))
    assert setup["guidance_scale"] == 7.5 and setup["safe_guidance"] == "none"
    assert need_alike(setup, setup, "a", "b") == ""
    assert need_alike(setup, {}, "a", "b").startswith("b does not say its steps, ")
    full = {**setup, "scheduler": {**setup["scheduler"], "eta": 5, "trained_betas": None}}
    assert need_alike(setup, full, "a", "b") == ""  # DDIM knows no eta, and None is its default


@pytest.mark.parametrize("copy", ["same", "hard link", "symbolic link", "copy", "shuffled", "bare"])
def test_the_unsafe_recording_is_not_the_normal_one(home, tmp_path, capsys, copy):
    normal = tmp_path / "normal" / "pred_x0.pth"
    normal.parent.mkdir()
    said = "is the recording of the unsafe videos"
    if copy == "same":
        normal = home.unsafe
    elif copy == "hard link":
        os.link(home.unsafe, normal)
    elif copy == "symbolic link":
        normal.symlink_to(home.unsafe)
    elif copy == "copy":
        shutil.copy(home.unsafe, normal)
        shutil.copy(home.unsafe.with_suffix(".json"), normal.with_suffix(".json"))
        said = "row 0 is the video of row 0 of"
    elif copy == "bare":
        shutil.copy(home.unsafe, normal)
        said = "row 0 is the video of row 0 of"
    else:
        tensor = open_x0_file(home.unsafe).tensor
        other = torch.randn(5, *SHAPE).half()
        torch.save(torch.cat([other, tensor[[6, 2]]]), normal)
        said = "row 5 is the video of row 6 of"
    for run in home.scripts(tmp_path, normal):
        refused(run(), capsys, str(normal), said)
    flags = ["--pred_x0", home.unsafe, "--normal_pred_x0", normal, "--label_file_dir", home.labels]
    save = ["--save_path", tmp_path / "e.pth"]
    refused(gen_eval_set.main([*map(str, flags), *map(str, save)]), capsys, str(normal), said)
    assert not (tmp_path / "e.pth").exists()


def test_an_unsafe_and_a_normal_video_may_begin_with_the_same_image(home, tmp_path):
    """The first frame of image to video is the image, the same at every step."""
    tensor = open_x0_file(home.unsafe).tensor
    other = torch.randn(tensor.shape).half()
    other[:, :, :, 0] = tensor[:, :, :, 0]
    normal = tmp_path / "pred_x0.pth"
    torch.save(other, normal)
    need_other_videos(open_x0_file(normal), open_x0_file(home.unsafe))


WORDS = [  # script, words of the command line, what is said
    (gen_eval_set, ["--pred_x0", "/nonexistent"], "--pred_x0 /nonexistent: no such file"),
    (gen_eval_set, ["pred_x0=/nonexistent"], "pred_x0=... /nonexistent: no such file"),
    (gen_eval_set, ["--normal_pred_x0", "/none"], "--normal_pred_x0 /none: no such file"),
    (gen_eval_set, ["--label_file_dir", "/none"], "--label_file_dir /none: no such file"),
    (gen_eval_set, ["--pred_x0", ""], "--pred_x0 '': a value is needed"),
    (gen_eval_set, ["--save_path="], "--save_path '': a value is needed"),
    (gen_eval_set, ["representation=rgb"], "representation=...: changes nothing here"),
    (gen_eval_set, ["rgb_matrix=x.json"], "rgb_matrix=...: changes nothing here"),
    (gen_eval_set, ["out_dir=a", "out_dir=b"], "out_dir=b: out_dir was given before"),
    (gen_eval_set, ["--seed", "-1"], "--seed -1: a whole number from 0"),
    (gen_eval_set, ["--seed", "9" * 30], "--seed 999999999999999999999999999999: a whole"),
    (gen_eval_set, ["--seed", "9" * 5000], "--seed: invalid int value: '999"),
    (gen_eval_set, ["--fraction", "nan"], "--fraction nan"),
    (gen_eval_set, ["--fraction", "1e-400"], "--fraction 0.0"),
    (gen_eval_set, ["--fraction", "x" * 10**6], "--fraction: invalid float value: 'xxx"),
    (gen_eval_set, ["x" * 10**6], "neither a flag nor key=value"),
    (build_x0, ["--pred_x0", "/none"], "/none: no such file"),
    (build_x0, ["--normal_pred_x0", "/none"], "/none: no such file"),
    (build_x0, ["--config", "/none.yaml"], "/none.yaml: no such file"),
    (build_x0, ["--rgb_matrix", "/x"], "--rgb_matrix: belongs to representation rgb, this one is"),
    (build_x0, ["rgb_matrix=/x"], "rgb_matrix=...: belongs to representation rgb"),
    (build_x0, ["--representation", "video", "rgb_matrix=/x"], "this one is video"),
    (build_x0, ["--representation", "rgb", "--rgb_matrix", "/x"], "/x: no such file"),
    (build_x0, ["--video_format", "pt"], "--video_format: belongs to representation video"),
    (build_x0, ["--sample_config", "/x"], "--sample_config: belongs to representation video"),
    (build_x0, ["--steps", "9" * 30], "--steps"),
    (build_x0, ["--out_dir", ""], "--out_dir '': a value is needed"),
    (fit_rgb, ["--recordings", "/none.yaml"], "/none.yaml: no such file"),
    (fit_rgb, ["--eval_dir", "/none"], "/none: no such file"),
    (fit_rgb, ["--seed", "-1"], "--seed -1: a whole number from 0"),
    (fit_rgb, ["--save_path", ""], "--save_path '': a value is needed"),
    (fit_rgb, ["--frames", "99999999999999999999"], "--frames 99999999999999999999: 1 to"),
    (fit_rgb, ["--frames", "0"], "--frames 0: 1 to 1000000000 are needed"),
    (fit_rgb, ["representation=rgb"], "representation=...: changes nothing here"),
    (fit_rgb, ["video_format=pt"], "video_format=...: changes nothing here"),
    (fit_rgb, ["sample_config=/none.yaml"], "/none.yaml: no such file"),
    (build_eval_set, ["--eval_dir", "/none"], "/none: no such file"),
    (build_eval_set, ["--config", "/none.yaml"], "/none.yaml: no such file"),
    (build_eval_set, ["--data_dir", "/none"], "/none"),
    (build_eval_set, ["--data_dir", "a", "out_dir=b"], "out_dir=b: --data_dir a names the data"),
    (build_eval_set, ["pred_x0=/none"], "pred_x0=...: changes nothing here"),
    (build_eval_set, ["representation=rgb"], "representation=...: changes nothing here"),
]


@pytest.mark.parametrize("script, words, said", WORDS)
def test_words_that_name_nothing_or_change_nothing(home, tmp_path, capsys, script, words, said):
    normal = home.folder / "normal" / "pred_x0.pth"
    if not normal.exists():
        write(normal, 2)
    settings = {
        "pred_x0": str(home.unsafe),
        "normal_pred_x0": str(normal),
        "label_file_dir": str(home.labels),
        "out_dir": str(tmp_path / "data"),
    }
    config, split = tmp_path / "b.yaml", tmp_path / "eval.pth"
    config.write_text(yaml.safe_dump(settings))
    torch.save([0, 4], split)
    flags = {
        gen_eval_set: ["--config", config, "--save_path", tmp_path / "e.pth"],
        build_x0: ["--config", config],
        fit_rgb: ["--recordings", config, "--save_path", tmp_path / "m.json"],
        build_eval_set: ["--config", config, "--eval_dir", split, "--save_dir", tmp_path],
    }[script]
    line = refused(script.main([*map(str, flags), *words]), capsys, said, alone=True)
    assert len(line.replace(str(tmp_path), "")) < 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.yaml", "eval.pth"]


def test_a_matrix_does_not_replace_a_recording(home, tmp_path, capsys, magictime):
    recording = write(tmp_path / "pred_x0.pth", 5, {})
    before = recording.read_bytes()
    settings = {"pred_x0": str(recording), "sample_config": str(magictime[0])}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(settings))
    flags = ["--recordings", str(tmp_path / "b.yaml"), "--gpu_num", "-1", "--frames", "4"]
    for path, said in ((recording, "pred_x0.pth: not UTF-8"), (tmp_path, "is a folder, a file")):
        refused(fit_rgb.main([*flags, "--save_path", str(path)]), capsys, said)
    assert recording.read_bytes() == before


def test_a_category_that_is_too_small_to_train_is_told(home, tmp_path, capsys):
    labels = write_labels(tmp_path / "l.csv", {"big": [0, 1, 2, 3, 4], "two": [5, 6]})
    normal = write(tmp_path / "pred_x0.pth", 2, rows=3)
    words = ["--pred_x0", home.unsafe, "--normal_pred_x0", normal, "--label_file_dir", labels]
    save = ["--save_path", tmp_path / "e.pth"]
    assert gen_eval_set.main([*map(str, words), *map(str, save)]) == 0
    out = capsys.readouterr().out
    needed = "1 left, train_mae.py needs 2: label or sample 1 more video"
    assert f"group2 (two): 1 of 2 held out; {needed}" in out
    assert "group1 (big): 1 of 5 held out\n" in out and "normal: 1 of 3 held out\n" in out


@pytest.mark.parametrize(
    "change, said",
    [
        ({"categories": "abc"}, "categories: found 'abc'"),
        ({"pred_x0_made_by": 5}, "pred_x0_made_by: found 5"),
        ({"rgb_matrix": "x"}, "rgb_matrix: found 'x'"),
        ({"sampling": "x"}, "sampling: found 'x'"),
        ({"sampling": {"timesteps": "abc"}}, "sampling.timesteps: found 'abc'"),
        ({"sampling": {"scheduler": "x"}}, "sampling.scheduler: found 'x'"),
        ({"sampling": {"x0_mode": 5}}, "sampling.x0_mode: found 5"),
        ({"sampled_with": [1]}, "sampled_with: found [1]"),
    ],
)
def test_a_config_of_a_dataset_that_does_not_fit(home, tmp_path, change, said):
    normal = write(tmp_path / "normal" / "pred_x0.pth", 2)
    assert next(home.scripts(tmp_path, normal))() == 0
    config = tmp_path / "data" / "config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **change}))
    with pytest.raises(InputError) as error:
        FolderClips(tmp_path / "data")
    assert f"data/config.yaml: {said}" in str(error.value)


def test_a_hostile_sidecar_builds_no_object(home, tmp_path):
    """A class that is no scheduler is compared as it stands."""
    sidecar = json.loads(home.unsafe.with_suffix(".json").read_text())
    sidecar["meta"]["scheduler"] = {"class": "UNet2DConditionModel", "sample_size": 10**9}
    path = tmp_path / "pred_x0.pth"
    path.symlink_to(home.unsafe)
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    setup = recorded_setup(open_x0_file(path))
    assert need_alike(setup, setup, "a", "b") == ""
