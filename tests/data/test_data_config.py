"""build_x0.yaml as typed settings: its two forms, its paths, and who wins over whom."""

from argparse import Namespace
from pathlib import Path

import pytest

import build_eval_set
import build_x0
import fit_rgb
import gen_eval_set
from lvd.data.config import DataConfig, read_data_config
from lvd.errors import InputError
from lvd.utils.config import ROOT

PAPER_FORM = """
- pretrained_model_path: "models/StableDiffusion"
  motion_module: "models/mm.ckpt"
  inference_config: {beta_start: 0.00085, steps: [1, null]}
  pred_x0: outputs/pred_x0.pth
- label_file: "labels.csv"
- noise_scheduler_kwargs:
    beta_schedule: linear
"""


@pytest.fixture
def read(tmp_path):
    def read_text(text, *overrides, **flags):
        path = tmp_path / "build_x0.yaml"
        path.write_text(text)
        return read_data_config(path, Namespace(overrides=list(overrides), **flags))

    return read_text


def test_the_form_of_the_papers_repository_is_read_unchanged(read):
    config = read(PAPER_FORM)
    assert config.sample_config == [
        {
            "pretrained_model_path": "models/StableDiffusion",
            "motion_module": "models/mm.ckpt",
            "inference_config": {"beta_start": 0.00085, "steps": [1, None]},
        },
        {"noise_scheduler_kwargs": {"beta_schedule": "linear"}},
    ]
    assert type(config.sample_config[0]["inference_config"]) is dict
    assert config.pred_x0 == ROOT / "outputs/pred_x0.pth"
    assert config.label_file_dir == ROOT / "labels.csv"
    bare_path = PAPER_FORM.replace('label_file: "labels.csv"', "labels.csv")
    assert read(bare_path) == config


def test_defaults_and_the_shipped_files():
    assert DataConfig().out_dir == ROOT / "MagicTime/train_detector_data"
    for name in ("build_x0.yaml", "build_x0_full.yaml"):
        path = ROOT / name
        if path.exists():
            config = read_data_config(path, Namespace())
            assert config.representation == "latent" and config.pred_x0.is_absolute()


def test_the_command_line_wins_and_its_paths_count_from_the_current_folder(
    read, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pth").touch()
    text = "pred_x0: a.pth\nnormal_pred_x0: b.pth\nout_dir: data\nrepresentation: video\n"
    config = read(text, "out_dir=here", "representation=rgb", pred_x0="c.pth", out_dir="there")
    assert config == DataConfig(
        pred_x0=Path("c.pth"),
        normal_pred_x0=ROOT / "b.pth",
        out_dir=Path("here"),
        representation="rgb",
    )
    assert read(text, pred_x0=None).pred_x0 == ROOT / "a.pth"  # a flag that was not given


def test_a_value_may_name_another_key(read):
    config = read(
        "out_dir: data\nrgb_matrix: ${out_dir}/m.json\nsample_config: ${out_dir}/s.yaml\n"
    )
    assert config.rgb_matrix == ROOT / "data/m.json"
    assert config.sample_config == ROOT / "data/s.yaml"


@pytest.mark.parametrize(
    "text, message",
    [
        ("pred_x0: ${oc.env:HOME}", "build_x0.yaml: .*oc.env:HOME"),
        ("pred_x0: a/${oc.env:HOME}", "build_x0.yaml: .*oc.env:HOME"),
        ("- {pretrained_model_path: '${oc.env:HOME}'}", "build_x0.yaml: .*oc.env:HOME"),
        ("- '${oc.env:HOME}'", "build_x0.yaml: .*oc.env:HOME"),
        ("pred_x0: ${nothing}", "build_x0.yaml: .*nothing"),
        ("epoch: 1", "build_x0.yaml: unknown key 'epoch'"),
        ("representation: [latent]", "build_x0.yaml: representation="),
        ("representation: pixels", "representation must be latent or rgb or video"),
        ("video_format: 4", "video_format must be mp4 or pt"),
        ("rgb_matrix: 4", "build_x0.yaml: rgb_matrix must be a path"),
    ],
)
def test_bad_files(read, text, message):
    with pytest.raises(InputError, match=message):
        read(text)


@pytest.mark.parametrize(
    "word, message",
    [
        ("out_dir", "out_dir: neither a flag nor key=value"),
        ("epoch=1", "key=value: unknown key 'epoch'"),
        ("pred_x0=7", "key=value: pred_x0 must be a path"),
        ("pred_x0=${oc.env:HOME}", "oc.env:HOME"),
    ],
)
def test_bad_words(read, word, message):
    with pytest.raises(InputError, match=message):
        read("{}", word)


@pytest.mark.parametrize("script", [build_x0, gen_eval_set, build_eval_set, fit_rgb])
def test_every_script_takes_overrides(script, tmp_path, capsys):
    flag = "--recordings" if script is fit_rgb else "--config"
    (tmp_path / "c.yaml").write_text("pred_x0: nowhere.pth\nlabel_file_dir: nowhere.csv\n")
    assert script.main([flag, str(tmp_path / "c.yaml"), "nothing=1"]) == 2
    assert "key=value: unknown key 'nothing'" in capsys.readouterr().err
