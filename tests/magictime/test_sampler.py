"""The sampler against its equations: x0, the DDIM update, guidance, noise by seed, batches,
decoding."""

import numpy as np
import pytest
import torch

from MagicTime.utils import pipeline
from tests.worlds import magictime_world

STEPS, SCALE = 6, 3.0


def run(
    model,
    prompts=("a red square",),
    seeds=(5,),
    steps=STEPS,
    scale=SCALE,
    mode="true",
    negatives=None,
    side=32,
):
    """latents, and what on_step saw: {"t": [...], "x0": [S, ...], "latents": [S, ...], "unet": [S,
    ...]}."""
    seen = {"t": [], "x0": [], "latents": [], "unet": []}
    hook = model.unet.register_forward_hook(
        lambda module, inputs, output: seen["unet"].append(output.sample.clone())
    )

    def on_step(step, timestep, x0, latents):
        assert step == len(seen["t"])
        for key, value in (("t", timestep), ("x0", x0), ("latents", latents)):
            seen[key].append(value)

    try:
        latents = pipeline.sample(
            model,
            list(prompts),
            list(negatives or ["bad"] * len(prompts)),
            list(seeds),
            4,
            side,
            side,
            steps,
            scale,
            mode,
            on_step,
        )
    finally:
        hook.remove()
    return latents, seen


def alpha_bar():
    """Cumulative products of 1 - beta, betas linear from 0.00085 to 0.012 over 1000 timesteps."""
    return np.cumprod(1 - np.linspace(0.00085, 0.012, 1000))


def guided(unet_output, scale=SCALE):
    unconditional, conditional = unet_output.double().chunk(2)
    return unconditional + scale * (conditional - unconditional)


def schedule(steps=STEPS):
    """(abar_t, abar_prev) of each step: t leading with offset 1, abar_prev = 1 after the last."""
    abar, stride = alpha_bar(), 1000 // steps
    ts = [i * stride + 1 for i in reversed(range(steps))]
    return ts, [(abar[t], abar[t - stride] if t - stride >= 0 else 1.0) for t in ts]


def test_x0_and_update_follow_the_equations(model):
    """x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t); x_prev = sqrt(abar_prev) x0 + sqrt(1 -
    abar_prev) eps."""
    latents, seen = run(model)
    ts, alphas = schedule()
    assert seen["t"] == ts
    x = pipeline.initial_noise(model, [5], 4, 32, 32).double()
    for step, (abar, previous) in enumerate(alphas):
        eps = guided(seen["unet"][step])
        x0 = (x - np.sqrt(1 - abar) * eps) / np.sqrt(abar)
        torch.testing.assert_close(seen["x0"][step].double(), x0, rtol=1e-4, atol=1e-4)
        x = np.sqrt(previous) * x0 + np.sqrt(1 - previous) * eps
        torch.testing.assert_close(seen["latents"][step].double(), x, rtol=1e-4, atol=1e-4)
        x = seen["latents"][step].double()
    assert torch.equal(latents, seen["latents"][-1])
    torch.testing.assert_close(
        latents, seen["x0"][-1]
    )  # with set_alpha_to_one the last step ends on x0 itself


def test_released_x0_is_gain_times_x0_plus_noise(model):
    """sqrt(abar_prev / abar_t) x0 + (sqrt(1 - abar_prev) - sqrt(1 - abar_t)) / sqrt(abar_t) eps;
    the video is the same."""
    latents, true = run(model)
    latents_released, released = run(model, mode="released")
    assert torch.equal(latents, latents_released)
    for step, (abar, previous) in enumerate(schedule()[1]):
        eps = guided(true["unet"][step])
        noise_gain = (np.sqrt(1 - previous) - np.sqrt(1 - abar)) / np.sqrt(abar)
        expected = np.sqrt(previous / abar) * true["x0"][step].double() + noise_gain * eps
        torch.testing.assert_close(released["x0"][step].double(), expected, rtol=1e-4, atol=1e-4)
        assert (released["x0"][step] - true["x0"][step]).abs().max() > 0.01


def test_released_gain_at_50_steps():
    """The published gains: 1.125 at step 0, 1.08 at 19, 1.03 at 39."""
    gains = [np.sqrt(previous / abar) for abar, previous in schedule(50)[1]]
    assert [round(gains[step], n) for step, n in ((0, 3), (19, 2), (39, 2))] == [1.125, 1.08, 1.03]


def test_a_batch_of_eight_is_eight_batches_of_one(world):
    """In float64: 6 steps, each rounded by 1e-14, and a gain of 400
    (magictime_world.WELL_CONDITIONED) make less than 1e-10."""
    model, side = (
        magictime_world.load(world[0]).to("cpu", torch.float64),
        magictime_world.WELL_CONDITIONED,
    )
    prompts = [
        "a red square",
        "two dots",
        "a",
        "a wave",
        "x y z",
        "blue",
        "a longer prompt that is cut",
        "dots",
    ]
    negatives = [f"bad {i}" for i in range(8)]
    seeds = [3, 1, 4, 1, 5, 9, 2, 6]
    together, seen = run(model, prompts, seeds, negatives=negatives, side=side)
    for i in range(8):
        alone, seen_alone = run(
            model, prompts[i : i + 1], seeds[i : i + 1], negatives=negatives[i : i + 1], side=side
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-8, atol=1e-8)
        for step in range(STEPS):
            torch.testing.assert_close(
                seen["x0"][step][i : i + 1], seen_alone["x0"][step], rtol=1e-8, atol=1e-8
            )


def test_noise_is_one_draw_from_the_seed(model):
    """What the original draws from torch's global generator after manual_seed."""
    torch.manual_seed(1587796317)
    expected = torch.randn(1, 4, 4, 4, 4)
    noise = pipeline.initial_noise(model, [1587796317, 8, 1587796317], 4, 32, 32)
    assert (
        torch.equal(noise[:1], expected)
        and torch.equal(noise[0], noise[2])
        and not torch.equal(noise[0], noise[1])
    )


def test_guidance(model):
    """Twice the batch above 1; the prompt alone at 1 and below, where the negative prompt says
    nothing."""
    assert run(model)[1]["unet"][0].shape[0] == 2
    alone, seen = run(model, scale=1.0)
    assert seen["unet"][0].shape[0] == 1
    assert torch.equal(alone, run(model, scale=1.0, negatives=["else"])[0])
    assert not torch.equal(run(model)[0], run(model, negatives=["else"])[0])


def test_prompts_are_cut_and_padded_to_the_encoders_length(model):
    with torch.no_grad():
        short, long = pipeline.encode(model, ["", "a" * 5]), pipeline.encode(model, ["b " * 40])
        expected = model.text_encoder(torch.tensor([[78, *[79] * 11]])).last_hidden_state
    assert short.shape == (2, 12, 16) and long.shape == (1, 12, 16)
    torch.testing.assert_close(short[:1], expected)


def test_decode_frame_by_frame(world):
    """In float64, where other sizes of batches differ by 1e-14."""
    model = magictime_world.load(world[0]).to("cpu", torch.float64)
    latents = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    pixels = pipeline.decode(model.vae, latents, chunk=4)
    assert pixels.shape == (2, 3, 3, 32, 32) and pixels.min() >= 0 and pixels.max() <= 1
    with torch.no_grad():
        for b in range(2):
            for f in range(3):
                frame = model.vae.decode(latents[b : b + 1, :, f] / 0.18215).sample[0]
                torch.testing.assert_close(
                    pixels[b, :, f], (frame / 2 + 0.5).clamp(0, 1), rtol=1e-10, atol=1e-10
                )
    torch.testing.assert_close(
        pipeline.decode(model.vae, latents[1], chunk=1), pixels[1], rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("side, expected", [(4, [16, 4]), (16, [16, 4]), (17, [2] * 10)])
def test_large_frames_are_decoded_two_at_a_time(model, side, expected):
    """More than 128 pixels are large; 20 frames of `side` latents (8 pixels each)."""
    seen = []
    hook = model.vae.decoder.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    try:
        pixels = pipeline.decode(model.vae, torch.zeros(4, 20, side, 1))
    finally:
        hook.remove()
    assert seen == expected and pixels.shape == (3, 20, 8 * side, 8)


def test_bytes_are_truncated():
    pixels = (
        torch.tensor([0.0, 0.999 / 255, 1.999 / 255, 0.9999, 1.0])
        .view(1, 5, 1, 1)
        .expand(3, 5, 1, 1)
    )
    assert pipeline.to_bytes(pixels)[:, 0, 0, 0].tolist() == [0, 0, 1, 254, 255]


@pytest.mark.parametrize(
    "key",
    [
        "motion_module",
        "dreambooth_path",
        "magic_adapter_s_path",
        "magic_adapter_t_path",
        "magic_text_encoder_path",
    ],
)
def test_every_file_changes_the_video(world, model, key):
    without = {
        key: "",
        **({"magic_adapter_t_path": ""} if key == "motion_module" else {}),
    }  # T updates the motion module
    assert not torch.allclose(
        run(magictime_world.load(world[0], **without), steps=2)[0],
        run(model, steps=2)[0],
        atol=1e-3,
    )
