"""The sampler against the original MagicTime: the same tiny weights, the same numbers
(tests/parity/README.md).

Through the command line for every growing set of weight files, and through the loading code that it
uses. The numbers are absolute float32 tolerances on a CPU; mistakes are far larger.
"""

import json
import math
from collections import namedtuple

import pytest
import torch
import yaml
from diffusers import DDIMScheduler, UNetMotionModel
from safetensors.torch import load_file

from lvd.x0.file import open_x0_file
from MagicTime import inference_magictime
from MagicTime.utils.pipeline import decode, encode, initial_noise, released_x0
from MagicTime.utils.weights.load import load_magictime, load_sampling_vae
from MagicTime.utils.weights.motion_unet import motion_transformers
from tests.worlds import magictime_world

PARITY = magictime_world.ROOT / "tests" / "parity"
INPUTS = json.loads((PARITY / "inputs.json").read_text())
PROMPT, NEGATIVE = INPUTS["prompt"], INPUTS["negative_prompt"]
# In the order of the cases: each adds one file to the cases before.
FILES = {
    "pretrained_model_path": "Base_Model/stable-diffusion-v1-5",
    "motion_module": "Base_Model/motion_module/motion_module.ckpt",
    "dreambooth_path": "DreamBooth/TinyBooth.safetensors",
    "magic_adapter_s_path": "Magic_Weights/magic_adapter_s/magic_adapter_s.ckpt",
    "magic_adapter_t_path": "Magic_Weights/magic_adapter_t",
    "magic_text_encoder_path": "Magic_Weights/magic_text_encoder",
}
CASES = ("a_base", "b_motion", "c_dreambooth", "d_adapter_s", "e_adapter_t", "f_all")
# Fifty steps take eight seconds: the smallest set of files and all of them are sampled so. The sets
# between differ in the weights alone, which 10 steps and the first of 50 show.
FIFTY = ("a_base", "f_all")
RUNS = [*((case, 10) for case in CASES), *((case, 50) for case in FIFTY)]
EXPECTED_X0 = {"true": "predx0_true", "released": "predx0_upstream"}
TEXT, UNET_OUT, X_T, X0, VIDEO = 2e-5, 2e-5, 2e-3, 4e-3, 4e-5
WEIGHT = 1e-6  # merging an adapter is a few float32 roundings of weights below 2

Sampled = namedtuple(
    "Sampled", "x0 x_t info unet_out"
)  # [S, C, F, h, w] twice, the row's facts, S UNet outputs [2, ...]


def expected(case):
    return load_file(PARITY / f"expected_{case}.safetensors")


def weight_paths(case):
    """{YAML key: path} of a case; the files that it does not have are empty, as in a YAML."""
    count = CASES.index(case) + 1
    return {
        key: str(PARITY / "ckpts" / name) if i < count else ""
        for i, (key, name) in enumerate(FILES.items())
    }


def near(found, wanted, tolerance):
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """sampled(case, steps, x0_mode="true"): what the command line records, and every UNet output on
    the way."""
    made = {}

    def get(case, steps, x0_mode="true"):
        key = (case, steps, x0_mode)
        if key not in made:
            made[key] = run_command_line(tmp_path_factory.mktemp("parity"), *key)
        return made[key]

    return get


def run_command_line(folder, case, steps, x0_mode):
    block = dict(
        weight_paths(case),
        H=INPUTS["height"],
        W=INPUTS["width"],
        L=INPUTS["video_length"],
        seed=[INPUTS["seed"]],
        steps=steps,
        guidance_scale=INPUTS["guidance_scale"],
        prompt=[PROMPT],
        n_prompt=[NEGATIVE],
        x0_mode=x0_mode,
        dtype="float32",
        x0_dtype="float32",
        save_predx_0=True,
        save_predx_t=True,
    )
    (folder / "c.yaml").write_text(yaml.safe_dump([block, magictime_world.inference_block()]))
    unet_out = []

    def keep(module, _, output):
        if isinstance(module, UNetMotionModel):
            unet_out.append(output.sample.clone())

    hook = torch.nn.modules.module.register_module_forward_hook(keep)
    try:
        status = inference_magictime.main(
            [
                "--config",
                str(folder / "c.yaml"),
                "--save-path",
                str(folder / "out"),
                "--gpu_num",
                "-1",
            ]
        )
    finally:
        hook.remove()
    assert status == 0 and len(unet_out) == steps
    x0, x_t = (open_x0_file(folder / "out" / name) for name in ("pred_x0.pth", "pred_x_t.pth"))
    return Sampled(x0.tensor[0], x_t.tensor[0], x0.info[0], unet_out)


@pytest.fixture(scope="module")
def models():
    """models(case): the loaded MagicTime of a case; not to be changed."""
    made = {}

    def get(case):
        if case not in made:
            made[case] = load(case)
        return made[case]

    return get


def load(case):
    return load_magictime(weight_paths(case), ddim()).to("cpu")


def ddim(**changes):
    return DDIMScheduler(
        **{**magictime_world.inference_block()["noise_scheduler_kwargs"], **changes}
    )


def guided(unet_out):
    unconditional, conditional = unet_out.chunk(2)
    return unconditional + INPUTS["guidance_scale"] * (conditional - unconditional)


# ---- through the command line


@pytest.mark.parametrize("case, steps", RUNS)
def test_recorded_x0_and_latents(sampled, case, steps):
    found, wanted = sampled(case, steps), expected(case)
    rows = wanted[f"steps{steps}.step_index"]
    assert found.info["timesteps"] == wanted[f"steps{steps}.timesteps"].tolist()
    assert found.info["prompt"] == PROMPT and found.info["seed"] == INPUTS["seed"]
    near(found.x0[rows], wanted[f"steps{steps}.predx0_true"], X0)
    near(found.x_t[rows], wanted[f"steps{steps}.predx_t"], X_T)


@pytest.mark.parametrize("case, steps", [*((case, 10) for case in CASES), ("f_all", 50)])
def test_recorded_x0_of_the_released_code(sampled, case, steps):
    """x0_mode: released. The other cases' 50 steps are in the next tests."""
    found, wanted = sampled(case, steps, "released"), expected(case)
    rows = wanted[f"steps{steps}.step_index"]
    near(found.x0[rows], wanted[f"steps{steps}.predx0_upstream"], X0)
    near(found.x_t[rows], wanted[f"steps{steps}.predx_t"], X_T)
    if "steps50.predx0_upstream_all" in wanted and steps == 50:
        near(found.x0, wanted["steps50.predx0_upstream_all"], X0)


@pytest.mark.parametrize("case", FIFTY)
def test_released_x0_of_fifty_steps(sampled, case):
    """Computed by the sampler's own function from the noise and the latents of the run with the
    true x0."""
    found, wanted, scheduler = sampled(case, 50), expected(case), ddim()
    scheduler.set_timesteps(50)
    rows = wanted["steps50.step_index"].tolist()
    x0 = [
        released_x0(
            scheduler, guided(found.unet_out[i]), scheduler.timesteps[i], found.x_t[i : i + 1]
        )
        for i in rows
    ]
    near(torch.cat(x0), wanted["steps50.predx0_upstream"], X0)


@pytest.mark.parametrize("case, steps", RUNS)
def test_unet_outputs(sampled, case, steps):
    found, wanted = sampled(case, steps).unet_out, expected(case)
    near(found[0], wanted[f"steps{steps}.unet_out_first"], UNET_OUT)
    near(found[-1], wanted[f"steps{steps}.unet_out_last"], UNET_OUT)
    if steps == 10:
        near(
            guided(found[0]), wanted["steps10.guided_noise_first"], 16 * UNET_OUT
        )  # 8.5 and 7.5 times two outputs


@pytest.mark.parametrize("case, steps", [*((case, 10) for case in CASES), ("f_all", 50)])
def test_decoded_video(sampled, models, case, steps):
    near(
        decode(models(case).vae, sampled(case, steps).x_t[-1:]),
        expected(case)[f"steps{steps}.video"],
        VIDEO,
    )


def test_decoded_x0_of_the_released_code(sampled):
    """A recorded row, decoded by the VAE that the other scripts load."""
    vae, wanted = load_sampling_vae(weight_paths("f_all")), expected("f_all")
    near(
        decode(vae, sampled("f_all", 10, "released").x0[4:5]),
        wanted["steps10.decode_predx0_upstream.4"],
        VIDEO,
    )


# ---- through the loading code


@pytest.mark.parametrize("case", CASES)
def test_text(models, case):
    model, wanted = models(case), expected(case)
    assert token_ids(model, [NEGATIVE, PROMPT]).equal(wanted["input_ids"])
    near(encode(model, [NEGATIVE, PROMPT]), wanted["text_embeddings"], TEXT)


@pytest.mark.parametrize("case", ["a_base", "c_dreambooth", "f_all"])
def test_six_texts(models, case):
    """An empty one, upper case, punctuation, one that is longer than the encoder reads."""
    model, wanted = models(case), load_file(PARITY / f"expected_text_{case}.safetensors")
    assert token_ids(model, INPUTS["texts"]).equal(wanted["input_ids"])
    near(encode(model, INPUTS["texts"]), wanted["embeddings"], TEXT)


def token_ids(model, texts):
    """The ids that the text encoder is given."""
    seen = []
    hook = model.text_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encode(model, texts)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("case", CASES)
def test_a_published_seed_gives_the_originals_initial_noise(models, case):
    """But for the last bits, in which CPUs differ: sqrt(-2 log u) cos(2 pi v) of random u and v.

    The cosine's argument, up to 2 pi, is rounded by 2**-24 of itself, and the root is 6 at most.
    """
    found = initial_noise(
        models(case), [INPUTS["seed"]], INPUTS["video_length"], INPUTS["height"], INPUTS["width"]
    )
    near(found, expected(case)["latents"], 6 * 2 * math.pi * 2**-23)


@pytest.mark.parametrize("key", sorted(load_file(PARITY / "expected_weights.safetensors")))
def test_effective_weights(models, key):
    case, name = key.split("|")
    part, name = name.split(":")
    for old, new in {
        "text_model.": "",
        ".temporal_transformer": "",
        "attention_blocks.0": "attn1",
        "attention_blocks.1": "attn2",
        "mid_block.attentions.0.query": "mid_block.attentions.0.to_q",
    }.items():
        name = name.replace(old, new)
    wanted = load_file(PARITY / "expected_weights.safetensors")[key]
    near(getattr(models(case), part).get_parameter(name).data, wanted, WEIGHT)


def first_unet_out(model, timestep):
    """UNet output [2, C, F, h, w] of the original's initial latents at `timestep`."""
    text = encode(model, [NEGATIVE, PROMPT]).repeat_interleave(INPUTS["video_length"], dim=0)
    latents = expected("f_all")["latents"]
    return model.unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=text).sample


@pytest.mark.parametrize("case", [case for case in CASES if case not in FIFTY])
def test_first_of_fifty_steps(models, case):
    wanted, scheduler = expected(case), ddim()
    scheduler.set_timesteps(50)
    first = scheduler.timesteps[0]
    assert wanted["steps50.timesteps"].tolist() == scheduler.timesteps.tolist()
    unet_out = first_unet_out(models(case), first)
    near(unet_out, wanted["steps50.unet_out_first"], UNET_OUT)
    step = scheduler.step(guided(unet_out), first, wanted["latents"])
    near(step.pred_original_sample, wanted["steps50.predx0_true"][:1], X0)
    near(step.prev_sample, wanted["steps50.predx_t"][:1], X_T)
    released = released_x0(scheduler, guided(unet_out), first, step.prev_sample)
    near(released, wanted["steps50.predx0_upstream"][:1], X0)


# ---- the tolerances can fail


def test_right_first_step(models):
    near(
        first_unet_out(models("f_all"), 901), expected("f_all")["steps10.unet_out_first"], UNET_OUT
    )


def test_a_norm_that_mixes_frames_is_far_outside():
    """diffusers' own motion modules: GroupNorm over frames, height and width jointly."""
    model = load("f_all")
    for module in motion_transformers(model.unet):
        joint = torch.nn.GroupNorm(
            module.norm.num_groups, module.norm.num_channels, eps=module.norm.eps
        )
        joint.load_state_dict(module.norm.state_dict())
        module.norm = joint.requires_grad_(False)
    difference = first_unet_out(model, 901) - expected("f_all")["steps10.unet_out_first"]
    assert 0.1 < difference.abs().max() < 1


def test_a_missing_file_is_far_outside(models):
    """Each case's model against the next case's numbers."""
    for case, following in zip(CASES, CASES[1:]):
        difference = (
            expected(case)["steps10.unet_out_first"] - expected(following)["steps10.unet_out_first"]
        )
        assert difference.abs().max() > 0.1, following
    assert (
        encode(models("e_adapter_t"), [PROMPT]) - expected("f_all")["text_embeddings"][1:]
    ).abs().max() > 100 * TEXT


def test_other_betas_are_far_outside(sampled):
    """Those of the base folder's own scheduler file, which MagicTime does not read."""
    wanted, noise = expected("f_all"), guided(sampled("f_all", 10).unet_out[0])
    other = ddim(beta_schedule="scaled_linear")
    other.set_timesteps(10)
    x0 = other.step(noise, other.timesteps[0], wanted["latents"]).pred_original_sample
    assert (x0 - wanted["steps10.predx0_true"][:1]).abs().max() > 100 * X0
