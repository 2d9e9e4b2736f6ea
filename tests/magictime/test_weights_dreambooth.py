"""Every form of the DreamBooth single file loads to the same weights; what belongs to no such file
is refused by name."""

import shutil
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from MagicTime.utils.weights.load import load_magictime, load_sampling_vae
from tests.worlds import magictime_world
from tests.worlds.weight_files import CKPTS, assert_refused, assert_same, assert_state, half, read

TEXT = "cond_stage_model.transformer."
COUNTS = "324 unet, 180 vae, 36 text_encoder tensors replaced"


NORM = "transformer.text_model.final_layer_norm.bias"


@pytest.fixture(scope="module")
def tensors(world):
    return read(world[0] / "ckpts" / CKPTS["dreambooth"])


@pytest.fixture(scope="module")
def plain(world):
    return load(world[0], world[0] / "ckpts" / CKPTS["dreambooth"])


def load(folder, path):
    block = magictime_world.model_block(folder)
    return load_magictime(
        {"pretrained_model_path": block["pretrained_model_path"], "dreambooth_path": path}, None
    )


def schedule():
    """The buffers of latent diffusion's DDPM."""
    names = [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "logvar",
        "lvlb_weights",
    ]
    return {name: torch.zeros(1000) for name in names}


def averages(tensors):
    """EMA weights of the UNet as latent diffusion names them: without dots."""
    names = [name for name in tensors if name.startswith("model.")]
    ema = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensors[name] + 1
        for name in names
    }
    assert "model_ema.diffusion_modelinput_blocks00weight" in ema
    return ema | {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(7, dtype=torch.int32),
    }


def without(tensors, start):
    return {name: t for name, t in tensors.items() if not name.startswith(start)}


def test_plain(world, plain):
    parts = world[1]
    assert_state(
        plain.unet, parts.clip.unet.state_dict(), lambda name: "motion_modules." not in name
    )
    assert_state(plain.vae, parts.vae.state_dict())
    assert_state(plain.text_encoder, parts.clip.text_encoder.state_dict())
    assert plain.report["dreambooth_path"] == f"{COUNTS}; 1 left out (1 position_ids)"


FORMS = {
    "float32": (
        lambda t: {n: x.float() if x.dtype.is_floating_point else x for n, x in t.items()},
        "1 left out (1 position_ids)",
    ),
    "without position_ids": (lambda t: {n: x for n, x in t.items() if "position_ids" not in n}, ""),
    "schedule": (lambda t: t | schedule(), "15 left out (14 noise schedule, 1 position_ids)"),
    "EMA": (lambda t: t | averages(t), "327 left out (326 EMA, 1 position_ids)"),
    "VAE training": (
        lambda t: (
            t
            | {
                "first_stage_model.loss.logvar": torch.zeros(1),
                "first_stage_model.loss.perceptual_loss.lin0.model.1.weight": torch.zeros(2, 2),
                "first_stage_model.model_ema.decay": torch.zeros(1),
            }
        ),
        "3 VAE training",
    ),
    "CLIP projection": (
        lambda t: (
            t
            | {
                "cond_stage_model.logit_scale": torch.ones(()),
                f"{TEXT}text_projection.weight": torch.ones(4, 4),
            }
        ),
        "2 CLIP projection",
    ),
    "text without text_model": (
        lambda t: {n.replace(f"{TEXT}text_model.", TEXT): x for n, x in t.items()},
        "1 position_ids",
    ),
    "VAE attention as Linear": (
        lambda t: {
            n: x[:, :, 0, 0].clone() if ".mid.attn_1." in n and x.dim() == 4 else x
            for n, x in t.items()
        },
        "1 position_ids",
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["safetensors", "ckpt", "nested"])
def test_form(world, tmp_path, tensors, plain, form, kind):
    change, said = FORMS[form]
    path = tmp_path / ("file.safetensors" if kind == "safetensors" else "file.ckpt")
    if kind == "safetensors":
        save_file(change(tensors), path)
    else:
        found = change(tensors)
        torch.save(
            {"state_dict": found, "global_step": 7, "epoch": 1} if kind == "nested" else found, path
        )
    loaded = load(world[0], path)
    for part in ("unet", "vae", "text_encoder"):
        assert_same(getattr(loaded, part), getattr(plain, part))
    report = loaded.report["dreambooth_path"]
    assert report.startswith(COUNTS) and said in report and ("left out" in report) == bool(said)


def test_part_that_is_missing_stays_the_bases(world, tmp_path, tensors, plain):
    base = magictime_world.load(world[0], **magictime_world.ONLY_BASE)
    bias = "first_stage_model.decoder.conv_in.bias"
    changed = tensors | {bias: tensors[bias] + 1}  # this world's base has the same VAE
    for start, part in (("first_stage_model.", "vae"), ("cond_stage_model.", "text_encoder")):
        save_file(without(changed, start), tmp_path / "file.safetensors")
        loaded = load(world[0], tmp_path / "file.safetensors")
        assert_same(getattr(loaded, part), getattr(base, part))
        assert_same(loaded.unet, plain.unet)
        assert f"{part} not in this file, the base's stays" in loaded.report["dreambooth_path"]
    assert torch.equal(loaded.vae.decoder.conv_in.bias, changed[bias].float())


def test_callbacks_of_the_trainer_are_no_reason_to_refuse(
    world, tmp_path, tensors, plain, monkeypatch
):
    """Stable Diffusion's own .ckpt files name a Lightning class and a numpy score; neither is
    needed, nor run."""
    import numpy

    names = (
        "pytorch_lightning",
        "pytorch_lightning.callbacks",
        "pytorch_lightning.callbacks.model_checkpoint",
    )
    modules = {name: types.ModuleType(name) for name in names}
    callback = type("ModelCheckpoint", (), {"__module__": names[-1]})
    modules[names[-1]].ModelCheckpoint = callback
    for name in names:
        monkeypatch.setitem(sys.modules, name, modules[name])
    torch.save(
        {
            "state_dict": tensors,
            "callbacks": {callback: {"best_model_score": torch.ones(1), "k": 3}},
            "score": numpy.float64(3.0),
        },
        tmp_path / "file.ckpt",
    )
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    assert_same(load(world[0], tmp_path / "file.ckpt").unet, plain.unet)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda t: without(t, "model.") | averages(t),
            "its EMA weights (model_ema.*) are not read",
        ),
        (lambda t: without(t, "model."), "no key begins with 'model.diffusion_model.'"),
        (lambda t: t | {f"conditioner.embedders.0.{NORM}": torch.zeros(4)}, "Stable Diffusion XL"),
        (
            lambda t: (
                without(t, TEXT)
                | {"cond_stage_model.model.transformer.resblocks.0.ln_1.bias": torch.zeros(4)}
            ),
            "Stable Diffusion 2",
        ),
        (
            lambda t: t | {"control_model.input_hint_block.0.weight": torch.zeros(4)},
            "control_model.input_hint_block.0.weight",
        ),
        (
            lambda t: t | {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(4)},
            "label_emb.0.0.weight",
        ),
        (
            lambda t: t | {"first_stage_model.encoder.more.weight": torch.zeros(4)},
            "encoder.more.weight",
        ),
        (
            lambda t: t | {f"{TEXT}text_model.encoder.layers.9.mlp.fc1.bias": torch.zeros(4)},
            "layers.9.mlp.fc1.bias",
        ),
        (lambda t: t | {f"{TEXT}final_layer_norm.bias": torch.zeros(16)}, "two forms of one"),
        (lambda t: t | {"betas_of_mine": torch.zeros(4)}, "key 'betas_of_mine' has no place"),
        (
            lambda t: (
                t | {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}
            ),
            "(32, 9, 3, 3)",
        ),
        (
            lambda t: {n: x for n, x in t.items() if n != "first_stage_model.quant_conv.bias"},
            "quant_conv.bias",
        ),
    ],
)
def test_file_that_does_not_belong(world, tmp_path, tensors, change, said):
    save_file(change(tensors), tmp_path / "file.safetensors")
    assert_refused(
        lambda: load(world[0], tmp_path / "file.safetensors"), tmp_path / "file.safetensors", said
    )


def test_the_vae_alone(world, tmp_path, tensors):
    """What decodes recordings: the file's VAE where it has one, read as strictly."""
    base = magictime_world.model_block(world[0])["pretrained_model_path"]
    path = tmp_path / "file.safetensors"
    shutil.copy(world[0] / "ckpts" / CKPTS["dreambooth"], path)
    changed = {
        n: t + 1 if n == "first_stage_model.decoder.conv_in.bias" else t for n, t in tensors.items()
    }
    save_file(changed, path)
    found = load_sampling_vae({"pretrained_model_path": base, "dreambooth_path": path})
    expected = half(changed["first_stage_model.decoder.conv_in.bias"])
    assert torch.equal(found.decoder.conv_in.bias, expected)
    save_file(tensors | {"more": torch.zeros(1)}, path)
    assert_refused(
        lambda: load_sampling_vae({"pretrained_model_path": base, "dreambooth_path": path}),
        path,
        "'more'",
    )
