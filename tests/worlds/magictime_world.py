"""A random tiny MagicTime, exported in the real file layouts: what tests of the sampler and the
scripts sample from."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]

UNET = dict(
    sample_size=2,
    in_channels=4,
    out_channels=4,
    layers_per_block=1,
    block_out_channels=(32, 32, 64),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=16,
    attention_head_dim=2,
    norm_num_groups=8,
)
# UNets that compile in three quarters and in half of the time: with two levels there is still every
# kind of block and both changes of resolution, with one only the blocks of attention.
TWO_LEVELS = dict(
    UNET,
    block_out_channels=(32, 64),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)
ONE_LEVEL = dict(
    UNET,
    block_out_channels=(32,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
)
VAE = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    sample_size=32,
    norm_num_groups=4,
    layers_per_block=1,
    block_out_channels=(4, 4, 8, 8),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    scaling_factor=0.18215,
)
# Side of a frame in pixels at which the random UNet amplifies little. In a frame of 32 x 32 its
# deepest level is one pixel, where a group of the motion modules' norm is two numbers: normalised,
# they are little more than the sign of their difference. There a nudge of the initial noise comes
# out up to 500,000 times as large after 6 steps, and at 64 x 64 400 times. Two ways to compute the
# same are compared here: they differ by the rounding of the CPU's kernels, made so much larger.
WELL_CONDITIONED = 64
SPATIAL = tuple(
    f"{attention}.{layer}"
    for attention in ("attn1", "attn2")
    for layer in ("to_q", "to_k", "to_v", "to_out.0")
)
TEMPORAL = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")


def shake(model, generator, scale=0.05):
    """Give every parameter its own random part (norms and biases too), so that no two mix-ups
    cancel."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


def make_parts(seed=0, unet=UNET):
    """Random, seeded arguments of export.export: SimpleNamespace(vae, base, clip, adapters)."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from MagicTime.utils.weights.motion_unet import make_motion_unet

    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    text = CLIPTextConfig(
        vocab_size=80,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        projection_dim=16,
        hidden_act="quick_gelu",
        bos_token_id=78,
        eos_token_id=79,
        pad_token_id=79,
    )
    vae = shake(AutoencoderKL(**VAE), draw)
    base = SimpleNamespace(
        unet=shake(UNet2DConditionModel(**unet), draw),
        text_encoder=shake(CLIPTextModel(text), draw),
    )
    clip = SimpleNamespace(
        unet=shake(make_motion_unet(dict(base.unet.config)), draw),
        text_encoder=shake(CLIPTextModel(text), draw),
    )
    return SimpleNamespace(vae=vae.eval(), base=base, clip=clip, adapters=_adapters(clip, draw))


def _adapters(clip, draw, rank=2):
    def pairs(model, wanted):
        return {
            name: (
                torch.randn(rank, m.in_features, generator=draw) * 0.2,
                torch.randn(m.out_features, rank, generator=draw) * 0.2,
            )
            for name, m in model.named_modules()
            if isinstance(m, torch.nn.Linear) and wanted(name)
        }

    return {
        "s": pairs(clip.unet, lambda n: ".attentions." in n and n.endswith(SPATIAL)),
        "t": pairs(clip.unet, lambda n: "motion_modules." in n and n.endswith(TEMPORAL)),
        "text": pairs(
            clip.text_encoder, lambda n: n.endswith(("q_proj", "k_proj", "v_proj", "out_proj"))
        ),
    }


def write_tokenizer(folder):
    """A CLIP tokenizer of single letters, 80 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,-")
    tokens = letters + [f"{c}</w>" for c in letters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": tokens[-2],
        "eos_token": tokens[-1],
        "unk_token": tokens[-1],
        "pad_token": tokens[-1],
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                **special,
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": 12,
                "do_lower_case": True,
            }
        )
    )
    return folder


def make_world(folder, seed=0, unet=UNET):
    """Export a random tiny MagicTime under folder/ckpts; returns its parts."""
    from MagicTime.prepare_weights.tiny.export import export

    folder = Path(folder)
    parts = make_parts(seed, unet)
    export(
        folder / "ckpts",
        write_tokenizer(folder / "tokenizer"),
        parts.vae,
        parts.base,
        parts.clip,
        parts.adapters,
    )
    return parts


def model_block(folder, **changes):
    """First block of the YAML of the world in `folder`: 32 x 32 pixels, 4 frames, 4 steps, three
    prompts."""
    ckpts = Path(folder) / "ckpts"
    block = dict(
        pretrained_model_path=str(ckpts / "Base_Model/stable-diffusion-v1-5"),
        motion_module=str(ckpts / "Base_Model/motion_module/motion_module.ckpt"),
        dreambooth_path=str(ckpts / "DreamBooth/TinyWorld.safetensors"),
        magic_adapter_s_path=str(ckpts / "Magic_Weights/magic_adapter_s/magic_adapter_s.ckpt"),
        magic_adapter_t_path=str(ckpts / "Magic_Weights/magic_adapter_t"),
        magic_text_encoder_path=str(ckpts / "Magic_Weights/magic_text_encoder"),
        H=32,
        W=32,
        L=4,
        seed=[7],
        seed_per_prompt=True,
        steps=4,
        guidance_scale=3.0,
        batch_size=2,
        x0_dtype="float32",
        prompt=["a red square", "two dots", "a wave"],
        n_prompt=["bad"],
    )
    return {k: v for k, v in {**block, **changes}.items() if v is not ...}


def load(folder, **changes):
    """The world's MagicTime as the sampler loads it; `changes`: YAML keys → other paths ("" leaves
    that file out)."""
    from diffusers import DDIMScheduler

    from MagicTime.utils.config import WEIGHTS
    from MagicTime.utils.weights.load import load_magictime

    block = {**model_block(folder), **changes}
    scheduler = DDIMScheduler(**inference_block()["noise_scheduler_kwargs"])
    return load_magictime({key: block[key] for key in WEIGHTS}, scheduler).to("cpu")


ONLY_BASE = dict.fromkeys(
    (
        "motion_module",
        "dreambooth_path",
        "magic_adapter_s_path",
        "magic_adapter_t_path",
        "magic_text_encoder_path",
    ),
    "",
)


def inference_block(**scheduler):
    """Second block of the YAML, as in MagicTime's own configs."""
    kwargs = dict(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        steps_offset=1,
        clip_sample=False,
    )
    return dict(
        unet_additional_kwargs=dict(
            use_inflated_groupnorm=True,
            use_motion_module=True,
            motion_module_resolutions=[1, 2, 4, 8],
            motion_module_mid_block=False,
            motion_module_type="Vanilla",
            motion_module_kwargs=dict(
                num_attention_heads=8,
                num_transformer_block=1,
                attention_block_types=["Temporal_Self", "Temporal_Self"],
                temporal_position_encoding=True,
                temporal_position_encoding_max_len=32,
                temporal_attention_dim_div=1,
                zero_initialize=True,
            ),
        ),
        noise_scheduler_kwargs={**kwargs, **scheduler},
    )


def write_config(path, folder, scheduler=None, **changes):
    """Write a sampling YAML for the world in `folder`; a change to `...` drops the key."""
    path = Path(path)
    path.write_text(
        yaml.safe_dump([model_block(folder, **changes), inference_block(**(scheduler or {}))])
    )
    return path
