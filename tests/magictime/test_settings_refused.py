"""Every setting of a sampling YAML: what does not fit is refused in one line that names it."""

import json
import shutil

import pytest
import yaml

from lvd.errors import InputError
from MagicTime.utils.config import read_config
from tests.worlds import magictime_world
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import sample

HUGE = 10**18
MODEL = [
    ({"H": HUGE}, ["H=1000000000000000000", "at most 16384"]),
    ({"W": True}, ["W=True", "a whole number"]),
    ({"L": -1}, ["L=-1", "at least 1"]),
    ({"steps": 4.0}, ["steps=4.0", "a whole number"]),
    ({"steps": 100_001}, ["steps=100001", "at most 100000"]),
    ({"steps": 1_001}, ["1001"]),
    ({"batch_size": HUGE}, ["batch_size=", "at most 10000"]),
    ({"fps": 0}, ["fps=0"]),
    ({"fps": HUGE}, ["fps=", "at most 1000"]),
    ({"guidance_scale": "4,"}, ["guidance_scale='4,'", "a number"]),
    ({"guidance_scale": 1e300}, ["guidance_scale=1e+300", "at most 1000"]),
    ({"guidance_scale": -1}, ["guidance_scale=-1", "at least 0"]),
    ({"guidance_scale": float("inf")}, ["guidance_scale=inf"]),
    ({"guidance_scale": True}, ["guidance_scale=True"]),
    ({"seed": [-2]}, ["seed -2"]),
    ({"seed": [-1]}, ["seed_per_prompt needs one seed of at least 0"]),
    ({"seed": 2**63}, ["seed 9223372036854775808"]),
    ({"seed": [True]}, ["seed True"]),
    ({"seed": ["x" * 10**6]}, ["seed 'xxx"]),
    ({"seed": [], "seed_per_prompt": False}, ["seed has 0 entries"]),
    ({"seed_per_prompt": "false,"}, ["seed_per_prompt='false,'", "true or false"]),
    ({"vae_tiling": "false"}, ["vae_tiling='false'", "true or false"]),
    ({"save_predx_t": 1}, ["save_predx_t=1"]),
    ({"x0_dtype": "half"}, ["x0_dtype='half'", "one of float16"]),
    ({"x0_mode": ["true"]}, ["x0_mode=['true']", "one of true"]),
    ({"n_prompt": [5]}, ["n_prompt=[5]", "a text"]),
    ({"prompt": [5]}, ["prompt"]),
    ({"motion_module": 5}, ["motion_module=5", "a path"]),
    ({"file_path": ["x" * 10**6]}, ["file_path=(1 rows)", "a path"]),
    ({"x" * 10**6: 1}, ["unknown key 'xxx"]),
    ({"stepz": 1}, ["unknown key 'stepz'", "steps is meant?"]),
]
SCHEDULER = [
    ({"clip_sample": "false,"}, ["clip_sample", "'false,'", "boolean"]),
    ({"clip_sample": "false"}, ["clip_sample", "'false'", "boolean"]),
    ({"clip_sample": "abc"}, ["clip_sample", "'abc'", "boolean"]),
    ({"clip_sample": 0}, ["clip_sample", "found 0", "boolean"]),
    ({"set_alpha_to_one": "true"}, ["set_alpha_to_one", "boolean"]),
    ({"rescale_betas_zero_snr": 1}, ["rescale_betas_zero_snr", "boolean"]),
    ({"beta_start": float("nan")}, ["beta_start", "nan"]),
    ({"beta_start": 0}, ["beta_start", "greater than 0"]),
    ({"beta_end": "0.012,"}, ["beta_end", "'0.012,'", "number"]),
    ({"beta_end": 12}, ["beta_end", "less than 1"]),
    ({"beta_schedule": "straight"}, ["beta_schedule", "'straight'", "scaled_linear"]),
    ({"steps_offset": -1}, ["steps_offset", "-1"]),
    ({"steps_offset": 10**6}, ["steps_offset", "1000000"]),
    ({"num_train_timesteps": HUGE}, ["num_train_timesteps", "100000"]),
    ({"num_train_timesteps": 0}, ["num_train_timesteps", "found 0"]),
    ({"prediction_type": "noise"}, ["prediction_type", "'noise'", "v_prediction"]),
    ({"timestep_spacing": "even"}, ["timestep_spacing", "'even'", "leading"]),
    ({"thresholding": None}, ["thresholding", "None", "boolean"]),
    ({"dynamic_thresholding_ratio": 2}, ["dynamic_thresholding_ratio", "found 2"]),
    ({"clip_sample_range": float("inf")}, ["clip_sample_range", "inf"]),
    ({"trained_betas": [0.1, 0.2]}, ["2 trained_betas for 1000 num_train_timesteps"]),
    ({"trained_betas": [0.1, "x"]}, ["trained_betas.1", "'x'"]),
    ({"trained_betas": "x" * 10**6}, ["trained_betas", "'xxx"]),
    ({"beta_sart": 0.1}, ["unknown key 'beta_sart'"]),
    (
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "steps_offset": 0},
        ["at timestep 999", "zero terminal SNR", "v_prediction"],
    ),
]
UNET = [
    ({"use_motion_module": "false"}, ["use_motion_module='false'", "true or false"]),
    ({"motion_module_mid_block": 0}, ["motion_module_mid_block=0", "true or false"]),
    ({"use_inflated_groupnorm": 1}, ["use_inflated_groupnorm=1", "MagicTime has True"]),
    ({"motion_module_resolutions": [[1], {}]}, ["motion_module_resolutions=[[1], {}]"]),
    ({"motion_module_kwargs": []}, ["motion_module_kwargs", "a mapping"]),
    ({"motion_module_kwargs": {"zero_initialize": "no"}}, ["zero_initialize='no'"]),
    ({"motion_module_kwargs": {"num_attention_heads": HUGE}}, ["heads=", "from 1 to 1024"]),
    (
        {"motion_module_kwargs": {"temporal_position_encoding_max_len": "32"}},
        ["max_length='32'", "a whole number"],
    ),
]


@pytest.mark.parametrize(
    "block, change, said",
    [
        *((0, change, said) for change, said in MODEL),
        *(("noise_scheduler_kwargs", change, said) for change, said in SCHEDULER),
        *(("unet_additional_kwargs", change, said) for change, said in UNET),
    ],
)
def test_a_setting_that_does_not_fit(world, tmp_path, capsys, block, change, said):
    config = tmp_path / "c.yaml"
    blocks = [magictime_world.model_block(world[0]), magictime_world.inference_block()]
    changed = blocks[0] if block == 0 else blocks[1][block]
    changed |= change
    config.write_text(yaml.safe_dump(blocks))
    line = refused(sample(config, tmp_path / "out", "--dry-run"), capsys, "c.yaml", *said)
    assert len(line.replace(str(config), "c.yaml")) < 300 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "written, instead, said",
    [
        ("clip_sample: false", "clip_sample: false,", ["clip_sample", "'false,'"]),
        ("clip_sample: false", 'clip_sample: "false"', ["clip_sample", "'false'"]),
        ("beta_start: 0.00085", "beta_start: .nan", ["beta_start", "nan"]),
        ("beta_start: 0.00085", "beta_start: 1\n    beta_start: 2", ["key 'beta_start'", "line"]),
        ("steps: 4", "steps: 99999999999999999999", ["line", "'99999999999999999999'"]),
        ("steps: 4", "steps: 4\n  steps: 5", ["key 'steps' stands in line"]),
        ("- H: 32", "- &all\n  <<: *all\n  H: 32", ["alias"]),
    ],
)
def test_a_text_that_does_not_fit(world, tmp_path, capsys, written, instead, said):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    text = config.read_text()
    assert written in text
    config.write_text(text.replace(written, instead))
    refused(sample(config, tmp_path / "out", "--dry-run"), capsys, "c.yaml", *said)


@pytest.mark.parametrize("words", [False, True])
def test_numbers_as_people_write_them(world, tmp_path, words):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    changes = {"guidance_scale": "4e0", "beta_start": "85e-5"}
    overrides = {}
    if words:
        from lvd.utils.config import parse_overrides

        given = ["guidance_scale=4e0", "noise_scheduler_kwargs.beta_start=85e-5"]
        overrides = parse_overrides(given)
    else:
        lines = config.read_text().splitlines()
        for number, line in enumerate(lines):
            for key, value in changes.items():
                if line.strip("- ").startswith(f"{key}:"):
                    lines[number] = f"{line.split(':')[0]}: {value}"
        config.write_text("\n".join(lines))
    read = read_config(config, {}, overrides)
    assert (read.settings.guidance_scale, read.noise_schedule["beta_start"]) == (4.0, 85e-5)


def test_zero_terminal_snr_with_v_prediction_is_sampled(world, tmp_path):
    """MagicTime's own spacing never comes to the last timestep, so epsilon is fine there."""
    zero = {"rescale_betas_zero_snr": True}
    fine = [zero, {**zero, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}]
    for scheduler in fine:
        config = magictime_world.write_config(
            tmp_path / "c.yaml", world[0], {**scheduler, "steps_offset": 0}
        )
        assert sample(config, tmp_path / "out", "--dry-run") == 0


@pytest.mark.parametrize(
    "change, said",
    [
        ({"use_rslora": "false"}, "use_rslora='false', true or false is needed"),
        ({"use_rslora": 1}, "use_rslora=1, true or false is needed"),
        ({"lora_alpha": 1e308}, "lora_alpha=1e+308, a number is needed"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan, a number is needed"),
        ({"alpha_pattern": {"q_proj": 10**30}}, "lora_alpha=1000000000000000000000000000000, a"),
        ({"rank_pattern": {"q_proj": "2"}}, "r='2', a whole number"),
        ({"r": True}, "r=True, a whole number"),
        ({"target_modules": ["x" * 10**6, 5]}, "target_modules=(2 rows), names"),
        ({"peft_type": "x" * 10**6}, "peft_type='xxx"),
    ],
)
def test_an_adapter_config_that_does_not_fit(world, tmp_path, change, said):
    folder = tmp_path / "magic_text_encoder"
    shutil.copytree(world[0] / "ckpts/Magic_Weights/magic_text_encoder", folder)
    (path,) = folder.rglob("adapter_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError) as error:
        magictime_world.load(
            world[0], **{**magictime_world.ONLY_BASE, "magic_text_encoder_path": str(folder)}
        )
    message = str(error.value).replace(str(tmp_path), "")
    assert "adapter_config.json" in message and said in message and len(message) < 250


@pytest.mark.parametrize(
    "part, change, said",
    [
        ("unet", {"layers_per_block": 10**9}, "layers_per_block=1000000000, a number of at most"),
        ("unet", {"block_out_channels": [10**12, 64, 64]}, "block_out_channels=[1000000000000"),
        ("unet", {"block_out_channels": [32] * 10**5}, "block_out_channels has 100000 entries"),
        ("text_encoder", {"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000, a number"),
        ("vae", {"norm_num_groups": 1e400}, "norm_num_groups=inf, a number of at most"),
        ("vae", {"scaling_factor": "0.18"}, "scaling_factor='0.18', a number"),
    ],
)
def test_a_model_config_that_does_not_fit(world, tmp_path, part, change, said):
    base = tmp_path / "base"
    shutil.copytree(world[0] / "ckpts/Base_Model/stable-diffusion-v1-5", base)
    path = base / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError) as error:
        magictime_world.load(
            world[0], **{**magictime_world.ONLY_BASE, "pretrained_model_path": str(base)}
        )
    message = str(error.value).replace(str(tmp_path), "")
    assert f"{part}/config.json" in message and said in message and len(message) < 250


@pytest.mark.parametrize(
    "words, said",
    [
        (["--run-csv", "a.csv", "prompt=[a]"], "prompt=...: changes nothing, the prompts are"),
        (["--run-json", "a.json", "file_path=a.txt"], "file_path=...: changes nothing"),
        (["--file_path", "a.txt", "prompt=[a]"], "the prompts are those of file_path a.txt"),
        (["file_path=a.txt", "prompt=[a]"], "the prompts are those of file_path a.txt"),
        (["--human", "prompt=[a]"], "the prompts are those of --human"),
        (["save_path=elsewhere"], "save_path=...: --save-path is given, which wins"),
        (["--filmstrips", 1, "save_predx_0=false"], "--filmstrips: shows recorded x0"),
        (["--filmstrips", -1], "--filmstrips -1: too small"),
        (["--limit", 0], "--limit 0: too small"),
        (["--file_path", "/none.txt"], "/none.txt: no such file"),
        (["--run-csv", "/none.csv"], "/none.csv: no such file"),
        (["--run-json", "/none.json"], "/none.json: no such file"),
        (["--guard", "/none"], "/none"),
        (["--guard-preview", "/none"], "--guard-preview: belongs to --guard"),
        (["--seed", "-2"], "--seed: seed -2"),
        (["--seed", "9" * 30], "--seed: seed 999999999999999999999999999999"),
        (["--batch_size", "9" * 30], "--batch_size: batch_size="),
        (["--batch_size", "9" * 5_000], "--batch_size: invalid int value"),
        (["--dtype", "x" * 5_000], "--dtype: dtype='xxx"),
    ],
)
def test_words_that_name_nothing_or_change_nothing(world, tmp_path, capsys, words, said):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    line = refused(sample(config, tmp_path / "out", "--dry-run", *words), capsys, said)
    assert len(line.replace(str(tmp_path), "")) < 300 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags", [["--file_path", ""], ["--run-csv="], ["--guard", ""], ["--safety_concept", ""]]
)
def test_a_flag_without_a_value(world, tmp_path, capsys, flags):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    flag = flags[0].rstrip("=")
    said = f"{flag} '': a value is needed"
    refused(sample(config, tmp_path / "out", "--dry-run", *flags), capsys, said)
