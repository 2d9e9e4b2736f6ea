"""The settings of a sampling: their layers, their types, and the plain dict saved beside videos."""

import pytest
import yaml

from lvd.utils.config import parse_overrides
from MagicTime.utils.config import read_config
from tests.worlds import magictime_world
from tests.worlds.refusals import refused
from tests.worlds.sampler_command import sample

# What config.yaml said of this YAML's first block, in this order, before settings were typed: a
# folder that was made then must go on.
SAVED = """\
H: 32
W: 32
L: 4
steps: 4
guidance_scale: 3
file_path: ''
n_prompt: bad
seed: 5
seed_per_prompt: false
save_predx_0: true
save_predx_t: true
x0_mode: 'true'
x0_dtype: float32
batch_size: 2
dtype: float32
save_path: ''
fps: 8
format: mp4
safe_guidance: medium
safety_concept: red
attention: auto
cpu_offload: false
vae_slicing: false
compile: false
prompts: 3
prompts_sha256: c1fa127f58c272d496a47ec2f3c348bbd34c228a73115546bbc5206d71ec964e
device: cpu
unet:
  heads: 8
  max_length: 32
  mid_block: false
noise_scheduler_kwargs:
  beta_end: 0.012
  beta_schedule: linear
  beta_start: 0.00085
  clip_sample: false
  steps_offset: 1
"""


def test_the_saved_config_is_the_one_of_earlier_versions(world, tmp_path):
    config = magictime_world.write_config(
        tmp_path / "c.yaml",
        world[0],
        guidance_scale=3,
        seed=5,
        seed_per_prompt=False,
        n_prompt="bad",
        save_predx_t=True,
        safe_guidance="medium",
        safety_concept="red",
    )
    assert sample(config, tmp_path / "out", "--limit", 1) == 0
    text = (tmp_path / "out" / "config.yaml").read_text()
    start, end = text.index("H: 32"), text.index("versions:")
    assert text[start:end] == SAVED


def test_an_override_wins_over_a_flag_and_that_over_the_yaml(world, tmp_path):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], steps=3, fps=5)
    flags = ["--batch_size", 3, "--seed", 4]
    assert sample(config, tmp_path / "out", "--limit", 1, *flags, "steps=2", "seed=[9]") == 0
    saved = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    keys = ("steps", "seed", "batch_size", "fps", "guidance_scale")
    assert [saved[key] for key in keys] == [2, [9], 3, 5, 3.0]


def test_words_reach_the_second_block(world, tmp_path, capsys):
    """Key by key; the block's other keys stay, and what is wrong is refused as in the YAML."""
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    plain = read_config(config).noise_schedule
    words = parse_overrides(["noise_scheduler_kwargs.beta_end=0.02"])
    assert read_config(config, {}, words).noise_schedule == {**plain, "beta_end": 0.02}
    word = "noise_scheduler_kwargs.beta_schedule=straight"
    refused(sample(config, tmp_path / "out", "--dry-run", word), capsys, "straight")
    deep = "unet_additional_kwargs.motion_module_kwargs.num_transformer_block=2"
    said = "num_transformer_block=2 is not supported"
    refused(sample(config, tmp_path / "out", "--dry-run", deep), capsys, said)


@pytest.mark.parametrize("mode", ["true", "released"])
def test_x0_mode_as_a_truth_value(world, tmp_path, mode):
    """`x0_mode=true` is YAML's truth value; the text is meant."""
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], x0_mode=True)
    assert read_config(config).settings.x0_mode == "true"
    assert read_config(config, {}, {"x0_mode": yaml.safe_load(mode)}).settings.x0_mode == mode


def test_a_value_may_refer_to_another_key(world, tmp_path):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], W="${H}")
    assert read_config(config).settings.W == 32


@pytest.mark.parametrize(
    "words, said",
    [
        (["stepz=50"], "unknown key 'stepz'"),
        (["steps=0"], "steps=0, a whole number of at least 1"),
        (["steps='25'"], "steps='25', a whole number of at least 1"),
        (["guidance_scale=high"], "guidance_scale='high', a number of at least 0"),
        (["guidance_scale=.nan"], "guidance_scale=nan"),
        (["compile=1"], "compile=1, true or false"),
        (["file_path=5"], "file_path=5, a path"),
        (["dtype=int8"], "dtype='int8', one of float16"),
        (["prompt.first=a"], "prompt={'first': 'a'}, one value or a list"),
        (["seed=[1, 2]", "seed_per_prompt=false"], "seed=...: seed has 2 entries"),
        (["safety_concept=red"], "safety_concept=...: belongs to --safe_guidance"),
        (["steps"], "steps: neither a flag nor key=value"),
        (["save_path=${oc.env:HOME}"], "only ${key} of the same file"),
        (["steps=${fps}", "fps=0"], "fps=0"),
        (["steps=${dtype}"], "steps"),
    ],
)
def test_bad_overrides(world, tmp_path, capsys, words, said):
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0])
    assert sample(config, tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["save_path", "motion_module"])
def test_a_yaml_does_not_read_the_environment(world, tmp_path, capsys, key):
    value = "${oc.env:HOME}"
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], **{key: value})
    assert sample(config, tmp_path / "out") == 2
    assert "only ${key} of the same file" in capsys.readouterr().err


def test_a_prompt_is_taken_as_it_stands(world, tmp_path):
    """A wild dollar sign in a prompt names no setting."""
    texts = {"prompt": ["a ${steps} sign", "???"], "n_prompt": ["${oc.env:HOME}"]}
    config = magictime_world.write_config(tmp_path / "c.yaml", world[0], **texts)
    settings = read_config(config).settings
    assert {key: getattr(settings, key) for key in texts} == texts
