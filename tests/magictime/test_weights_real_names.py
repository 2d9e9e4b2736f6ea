"""The real models' key names and shapes: lists written out here from what the published files hold,
not by our code.

The names do not depend on widths: a UNet, VAE and text encoder of Stable Diffusion 1.5's depth with
few channels have exactly the real files' keys. The real shapes are loaded from files whose tensors
are one stored number each.
"""

from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from lvd.utils.files import save_json
from MagicTime.utils.weights.base import load_text_encoder, load_unet, load_vae
from MagicTime.utils.weights.dreambooth import load_dreambooth
from MagicTime.utils.weights.motion import load_motion, motion_options, read_motion
from MagicTime.utils.weights.motion_unet import make_motion_unet
from tests.worlds import magictime_world
from tests.worlds.weight_files import CKPTS, assert_state, half, is_motion, read

UNET = dict(
    sample_size=64,
    in_channels=4,
    out_channels=4,
    layers_per_block=2,
    cross_attention_dim=768,
    attention_head_dim=8,
    block_out_channels=(320, 640, 1280, 1280),
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
)
VAE = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    sample_size=512,
    layers_per_block=2,
    scaling_factor=0.18215,
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
)
TEXT = dict(
    vocab_size=49408,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=77,
    projection_dim=768,
    hidden_act="quick_gelu",
)
NARROW_UNET = {**UNET, "block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 16}
NARROW_VAE = {**VAE, "block_out_channels": (4, 8, 16, 16), "norm_num_groups": 4}
NARROW_TEXT = {
    **TEXT,
    "vocab_size": 80,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "bos_token_id": 78,
    "eos_token_id": 79,
    "pad_token_id": 79,
}
VERSIONS = {
    1: (24, False),
    2: (32, True),
    3: (32, False),
}  # AnimateDiff's: frames of the tables, mid block


# ---- the published files' keys


def both(*names):
    return [f"{name}.{end}" for name in names for end in ("weight", "bias")]


def under(place, names):
    return [f"{place}.{name}" for name in names]


def animatediff_keys(mid_block, tables=True):
    """mm_sd_v14/v15 and v3_sd15_mm (560 keys), mm_sd_v15_v2 (588, with a mid block)."""
    attention = under(
        "transformer_blocks.0.attention_blocks.{}",
        [
            "to_q.weight",
            "to_k.weight",
            "to_v.weight",
            "to_out.0.weight",
            "to_out.0.bias",
            *["pos_encoder.pe"] * tables,
        ],
    )
    module = [
        *both("norm", "proj_in", "proj_out"),
        *(name.format(i) for i in (0, 1) for name in attention),
        *under(
            "transformer_blocks.0",
            both("norms.0", "norms.1", "ff.net.0.proj", "ff.net.2", "ff_norm"),
        ),
    ]
    places = [f"down_blocks.{i}.motion_modules.{j}" for i in range(4) for j in range(2)]
    places += [f"up_blocks.{i}.motion_modules.{j}" for i in range(4) for j in range(3)]
    places += ["mid_block.motion_modules.0"] * mid_block
    return [key for place in places for key in under(f"{place}.temporal_transformer", module)]


def ldm_unet_keys():
    """model.diffusion_model of v1-5-pruned: 686 keys."""

    def resnet(place, skip):
        return under(
            place,
            both(
                "in_layers.0",
                "in_layers.2",
                "emb_layers.1",
                "out_layers.0",
                "out_layers.3",
                *["skip_connection"] * skip,
            ),
        )

    queries = [f"attn{i}.to_{x}.weight" for i in (1, 2) for x in "qkv"]
    block = [
        *queries,
        *both(
            "attn1.to_out.0",
            "attn2.to_out.0",
            "ff.net.0.proj",
            "ff.net.2",
            "norm1",
            "norm2",
            "norm3",
        ),
    ]
    attention = [*both("norm", "proj_in", "proj_out"), *under("transformer_blocks.0", block)]
    keys = both("time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2")
    for i in range(1, 12):
        keys += (
            both(f"input_blocks.{i}.0.op")
            if i in (3, 6, 9)
            else resnet(f"input_blocks.{i}.0", i in (4, 7))
        )
        keys += under(f"input_blocks.{i}.1", attention) if i in (1, 2, 4, 5, 7, 8) else []
    keys += (
        resnet("middle_block.0", False)
        + under("middle_block.1", attention)
        + resnet("middle_block.2", False)
    )
    for i in range(12):
        keys += resnet(f"output_blocks.{i}.0", True)
        keys += under(f"output_blocks.{i}.1", attention) if i > 2 else []
        keys += both(f"output_blocks.{i}.{1 if i == 2 else 2}.conv") if i in (2, 5, 8) else []
    return under("model.diffusion_model", keys)


def ldm_vae_keys():
    """first_stage_model of v1-5-pruned: 248 keys."""

    def resnet(place, shortcut):
        return under(place, both("norm1", "conv1", "norm2", "conv2", *["nin_shortcut"] * shortcut))

    keys = both("quant_conv", "post_quant_conv")
    for side in ("encoder", "decoder"):
        keys += under(side, both("conv_in", "norm_out", "conv_out"))
        keys += under(f"{side}.mid.attn_1", both("norm", "q", "k", "v", "proj_out"))
        keys += under(side, resnet("mid.block_1", False) + resnet("mid.block_2", False))
    for level in range(4):
        for i in range(2):
            keys += resnet(f"encoder.down.{level}.block.{i}", i == 0 and level in (1, 2))
        for i in range(3):
            keys += resnet(f"decoder.up.{level}.block.{i}", i == 0 and level in (0, 1))
    keys += both(
        *(f"encoder.down.{i}.downsample.conv" for i in (0, 1, 2)),
        *(f"decoder.up.{i}.upsample.conv" for i in (1, 2, 3)),
    )
    return under("first_stage_model", keys)


def text_keys():
    """CLIP ViT-L/14's text model: 196 keys and, in older files, position_ids."""
    attention = [f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")]
    layer = both(*attention, "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")
    keys = [
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        *both("final_layer_norm"),
    ]
    return under(
        "text_model", keys + [key for i in range(12) for key in under(f"encoder.layers.{i}", layer)]
    )


def adapter_keys():
    """The three adapters' keys: 128, 240 and 48 layers."""
    places = [
        f"{side}_blocks.{i}.attentions.{j}"
        for side, blocks, count in (("down", (0, 1, 2), 2), ("up", (1, 2, 3), 3))
        for i in blocks
        for j in range(count)
    ] + ["mid_block.attentions.0"]
    processors = [
        f"{place}.transformer_blocks.0.attn{i}.processor" for place in places for i in (1, 2)
    ]
    spatial = [
        f"{processor}.{layer}_lora.{side}.weight"
        for processor in processors
        for layer in ("to_q", "to_k", "to_v", "to_out")
        for side in ("down", "up")
    ]
    temporal = [
        key.removesuffix(".weight")
        for key in animatediff_keys(False, tables=False)
        if key.endswith(".weight") and "norm" not in key.rsplit(".", 2)[-2] and ".norms." not in key
    ]
    words = [
        f"text_model.encoder.layers.{i}.self_attn.{x}_proj"
        for i in range(12)
        for x in ("q", "k", "v", "out")
    ]
    return spatial, *(
        [f"{name}.lora_{side}.default.weight" for name in names for side in "AB"]
        for names in (temporal, words)
    )


def test_counts():
    counts = [
        len(animatediff_keys(False)),
        len(animatediff_keys(True)),
        len(ldm_unet_keys()),
        len(ldm_vae_keys()),
        len(text_keys()),
        *map(len, adapter_keys()),
    ]
    assert counts == [560, 588, 686, 248, 196, 256, 480, 96]


# ---- the real names, few channels


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A world of the real depth: (folder, parts)."""
    from MagicTime.prepare_weights.tiny.export import export

    folder, draw = tmp_path_factory.mktemp("deep"), torch.Generator().manual_seed(0)
    text = CLIPTextConfig(**NARROW_TEXT)
    vae = magictime_world.shake(AutoencoderKL(**NARROW_VAE), draw).eval()
    base = SimpleNamespace(
        unet=magictime_world.shake(UNet2DConditionModel(**NARROW_UNET), draw),
        text_encoder=magictime_world.shake(CLIPTextModel(text), draw),
    )
    clip = SimpleNamespace(
        unet=magictime_world.shake(make_motion_unet(dict(base.unet.config)), draw),
        text_encoder=magictime_world.shake(CLIPTextModel(text), draw),
    )
    adapters = magictime_world._adapters(clip, draw)
    export(
        folder / "ckpts",
        magictime_world.write_tokenizer(folder / "tokenizer"),
        vae,
        base,
        clip,
        adapters,
    )
    return folder, SimpleNamespace(vae=vae, base=base, clip=clip, adapters=adapters)


def test_every_file_has_the_published_keys_and_finds_its_home(deep):
    folder, parts = deep
    spatial, temporal, words = adapter_keys()
    positions = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    expected = {
        "motion": animatediff_keys(False),
        "s": spatial,
        "t": temporal,
        "text_adapter": words,
        "text": text_keys(),
        "dreambooth": [
            *ldm_unet_keys(),
            *ldm_vae_keys(),
            positions,
            *under("cond_stage_model.transformer", text_keys()),
        ],
    }
    for name, keys in expected.items():
        assert set(read(folder / "ckpts" / CKPTS[name])) == set(keys), name
    loaded = magictime_world.load(folder)
    assert loaded.report == {
        "pretrained_model_path": "686 unet, 248 vae, 196 text_encoder tensors",
        "motion_module": (
            "520 motion tensors; 40 left out (40 position tables, equal to the computed ones)"
        ),
        "dreambooth_path": (
            "686 unet, 248 vae, 196 text_encoder tensors replaced; 1 left out (1 position_ids)"
        ),
        "magic_adapter_s_path": "128 layers merged",
        "magic_adapter_t_path": "240 layers merged",
        "magic_text_encoder_path": "48 layers merged",
    }
    for key, part, scale in (("s", "unet", 4), ("t", "unet", 2), ("text", "text_encoder", 2)):
        found, before = getattr(loaded, part), getattr(parts.clip, part)
        for name, (down, up) in parts.adapters[key].items():
            wanted = half(before.get_submodule(name).weight) + scale * half(up) @ half(down)
            torch.testing.assert_close(
                found.get_submodule(name).weight, wanted, rtol=1e-5, atol=1e-5, msg=name
            )
    merged = {f"{name}.weight" for key in ("s", "t") for name in parts.adapters[key]}
    assert_state(loaded.unet, parts.clip.unet.state_dict(), lambda name: name not in merged)
    assert_state(loaded.vae, parts.vae.state_dict())


@pytest.mark.parametrize("version", VERSIONS)
def test_motion_module_versions(deep, tmp_path, version):
    from MagicTime.prepare_weights.tiny.export import write_motion

    length, mid_block = VERSIONS[version]
    made = magictime_world.shake(
        make_motion_unet(NARROW_UNET, 8, length, mid_block), torch.Generator().manual_seed(version)
    )
    write_motion(tmp_path / "motion.ckpt", made)
    assert set(read(tmp_path / "motion.ckpt")) == set(animatediff_keys(mid_block))
    loaded = magictime_world.load(
        deep[0], **magictime_world.ONLY_BASE | {"motion_module": tmp_path / "motion.ckpt"}
    )
    assert_state(loaded.unet, made.state_dict(), is_motion)
    assert_state(loaded.unet, deep[1].base.unet.state_dict())


# ---- the real shapes


def stored_as_one_number(tensors, path, value=0.5):
    """A torch file of `tensors`' names and shapes, a few hundred kB: every tensor is one number
    seen many times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {name: torch.full((1,), value).half().expand(t.shape) for name, t in tensors.items()}, path
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """(base folder, DreamBooth file) of Stable Diffusion 1.5's real shapes."""
    from MagicTime.prepare_weights.tiny.ldm_names import ldm_unet, ldm_vae

    folder = tmp_path_factory.mktemp("full")
    with torch.device("meta"):
        unet, vae, text = (
            UNet2DConditionModel(**UNET),
            AutoencoderKL(**VAE),
            CLIPTextModel(CLIPTextConfig(**TEXT)),
        )
    words = {f"text_model.{name}": t for name, t in text.state_dict().items()}
    parts = (
        ("unet", unet.state_dict(), UNET),
        ("vae", vae.state_dict(), VAE),
        ("text_encoder", words, TEXT),
    )
    for part, tensors, config in parts:
        name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
        stored_as_one_number(tensors, folder / "base" / part / name)
        save_json(config, folder / "base" / part / "config.json")
    single = {
        f"model.diffusion_model.{name}": t for name, t in ldm_unet(unet.state_dict(), 2).items()
    }
    single |= {f"first_stage_model.{name}": t for name, t in ldm_vae(vae.state_dict(), 4).items()}
    single |= {f"cond_stage_model.transformer.{name}": t for name, t in words.items()}
    stored_as_one_number(single, folder / "dreambooth.ckpt", 0.25)
    return folder / "base", folder / "dreambooth.ckpt"


@pytest.mark.parametrize("version", VERSIONS)
def test_real_shapes(full, tmp_path, version):
    """Every file of the real size is checked and placed without its weights taking memory."""
    base, dreambooth = full
    length, mid_block = VERSIONS[version]
    with torch.device("meta"):
        adapter = MotionAdapter(motion_max_seq_length=length, use_motion_mid_block=mid_block)
    weights = {
        name: t for name, t in adapter.state_dict().items() if not name.endswith("pos_embed.pe")
    }
    stored_as_one_number(weights, tmp_path / "motion.ckpt", 0.125)
    motion = read_motion(tmp_path / "motion.ckpt")
    unet, count = load_unet(
        base, **motion_options(motion, heads=8, max_length=length, mid_block=None)
    )
    vae, vae_count = load_vae(base)
    encoder, text_count, _ = load_text_encoder(base)
    model = SimpleNamespace(unet=unet, vae=vae, text_encoder=encoder)
    assert (count, vae_count, text_count) == (686, 248, 196)
    assert load_motion(unet, motion) == f"{546 if mid_block else 520} motion tensors"
    assert (
        load_dreambooth(model, dreambooth) == "686 unet, 248 vae, 196 text_encoder tensors replaced"
    )
    for part in (unet, vae, encoder):
        for name, tensor in part.named_parameters():
            assert tensor.untyped_storage().nbytes() < 8, name
            assert tensor.flatten()[0] == (0.125 if is_motion(name) else 0.25), name
    size = sum(t.numel() for part in (unet, vae, encoder) for t in part.parameters())
    assert size == 859_520_964 + 83_653_863 + 123_060_480 + sum(
        t.numel() for t in adapter.parameters()
    )
