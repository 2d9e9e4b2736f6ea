"""Write trained parts as MagicTime's weight files, laid out as the real ones, in float16."""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save

from lvd.utils.files import save_json, save_torch
from lvd.utils.partials import atomic
from MagicTime.prepare_weights.tiny.ldm_names import ldm_unet, ldm_vae

BASE = Path("Base_Model/stable-diffusion-v1-5")
MOTION_FILE = Path("Base_Model/motion_module/motion_module.ckpt")
DREAMBOOTH = Path("DreamBooth/TinyWorld.safetensors")
MAGIC = Path("Magic_Weights")
PEFT_SCALE = 2.0  # lora_alpha / r of the T and text adapters; S has (2 up) @ (2 down) in its format
TARGETS = {
    "t": r".*motion_modules.*\.(attention_blocks\.\d+\.(to_q|to_k|to_v|to_out\.0)|proj_in|proj_out|"
    r"ff\.net\.0\.proj|ff\.net\.2)",
    "text": ["q_proj", "k_proj", "v_proj", "out_proj"],
}
OLD_VAE_ATTENTION = {
    "to_q.": "query.",
    "to_k.": "key.",
    "to_v.": "value.",
    "to_out.0.": "proj_attn.",
}
ANIMATEDIFF = {
    ".norm1.": ".norms.0.",
    ".norm2.": ".norms.1.",
    ".norm3.": ".ff_norm.",
    ".attn1.": ".attention_blocks.0.",
    ".attn2.": ".attention_blocks.1.",
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
PARTS = {
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def export(save_dir, tokenizer_dir, vae, base, clip, adapters):
    """Write all six weight files.

    Args:
        save_dir: folder of the weights.
        tokenizer_dir: folder of the CLIP tokenizer.
        vae: AutoencoderKL.
        base: .unet (UNet2DConditionModel) and .text_encoder, for the base folder.
        clip: .unet (UNetMotionModel) and .text_encoder. The motion modules become the motion file;
            the 2D part and the text encoder become the DreamBooth file.
        adapters: {"s", "t", "text": {layer name: (down, up)}} in diffusers' names.
    """
    out = Path(save_dir)
    write_base(out / BASE, tokenizer_dir, vae, base.unet, base.text_encoder)
    write_motion(out / MOTION_FILE, clip.unet)
    write_dreambooth(out / DREAMBOOTH, clip.unet, vae, clip.text_encoder)
    write_adapter_s(out / MAGIC / "magic_adapter_s" / "magic_adapter_s.ckpt", adapters["s"])
    named_t = {
        _animatediff_name(f"{name}.").rstrip("."): pair for name, pair in adapters["t"].items()
    }
    write_peft(out / MAGIC / "magic_adapter_t", named_t, TARGETS["t"])
    named_text = {_with_text_prefix(name): pair for name, pair in adapters["text"].items()}
    write_peft(out / MAGIC / "magic_text_encoder", named_text, TARGETS["text"])


def write_base(folder, tokenizer_dir, vae, unet, text_encoder):
    """Write the diffusers folder of Stable Diffusion 1.5.

    Its VAE has the old names of attention weights, its text encoder the prefix `text_model.`.
    """
    old_vae = {_old_vae_name(name): t for name, t in vae.state_dict().items()}
    _write_safetensors(folder / "vae" / "diffusion_pytorch_model.safetensors", old_vae)
    _write_safetensors(folder / "unet" / "diffusion_pytorch_model.safetensors", unet.state_dict())
    text = {_with_text_prefix(name): t for name, t in text_encoder.state_dict().items()}
    _write_safetensors(folder / "text_encoder" / "model.safetensors", text)
    version = {"_diffusers_version": "0.6.0"}  # what the published folder says
    for name, model in (("vae", vae), ("unet", unet)):
        config = {k: v for k, v in model.config.items() if not k.startswith("_")}
        save_json(
            {"_class_name": type(model).__name__, **version, **config},
            folder / name / "config.json",
        )
    save_json(
        json.loads(text_encoder.config.to_json_string(use_diff=True)),
        folder / "text_encoder" / "config.json",
    )
    save_json(SCHEDULER, folder / "scheduler" / "scheduler_config.json")
    save_json(
        {"_class_name": "StableDiffusionPipeline", **version, **PARTS}, folder / "model_index.json"
    )
    shutil.copytree(tokenizer_dir, folder / "tokenizer", dirs_exist_ok=True)


def write_motion(path, unet):
    """Write the motion modules in AnimateDiff's names, with a position table per attention."""
    tensors = {}
    for name, tensor in unet.state_dict().items():
        if "motion_modules." not in name:
            continue
        if name.endswith("pos_embed.pe"):  # one table per block here, one per attention there
            for attention in ("attn1", "attn2"):
                table = name.replace("pos_embed.pe", f"{attention}.pos_encoder.pe")
                tensors[_animatediff_name(table)] = tensor
        else:
            tensors[_animatediff_name(name)] = tensor
    _save(path, tensors)


def write_dreambooth(path, unet, vae, text_encoder):
    """Write one .safetensors in LDM names: the 2D part of `unet`, the VAE, the text encoder."""
    unet_2d = {name: t for name, t in unet.state_dict().items() if "motion_modules." not in name}
    layers = unet.config.layers_per_block
    ldm = {f"model.diffusion_model.{n}": t for n, t in ldm_unet(unet_2d, layers).items()}
    ldm |= {
        f"first_stage_model.{n}": t
        for n, t in ldm_vae(vae.state_dict(), len(vae.config.block_out_channels)).items()
    }
    ldm |= {
        f"cond_stage_model.transformer.{_with_text_prefix(n)}": t
        for n, t in text_encoder.state_dict().items()
    }
    positions = torch.arange(text_encoder.config.max_position_embeddings)[None]
    ldm["cond_stage_model.transformer.text_model.embeddings.position_ids"] = positions
    _write_safetensors(path, ldm)


def write_adapter_s(path, pairs):
    """Write updates of the spatial attentions, {layer: (down [r, in], up [out, r])}.

    Their names are those of diffusers' old attention processors.
    """
    tensors = {}
    for name, (down, up) in pairs.items():
        attention, layer = re.fullmatch(r"(.+)\.(to_q|to_k|to_v|to_out)(?:\.0)?", name).groups()
        tensors[f"{attention}.processor.{layer}_lora.down.weight"] = down
        tensors[f"{attention}.processor.{layer}_lora.up.weight"] = up
    _save(path, tensors)


def write_peft(folder, pairs, targets):
    """Write {layer: (down, up)} as ms-swift does: adapter_config.json, adapter_model.bin."""
    rank = next(iter(pairs.values()))[0].shape[0]
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors[f"{name}.lora_A.default.weight"] = down
        tensors[f"{name}.lora_B.default.weight"] = up
    _save(folder / "default" / "adapter_model.bin", tensors)
    config = {
        "peft_type": "LORA",
        "swift_type": "LORA",
        "r": rank,
        "lora_alpha": PEFT_SCALE * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": targets,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "inference_mode": False,
    }
    save_json(config, folder / "default" / "adapter_config.json")
    save_json({}, folder / "configuration.json")


def _animatediff_name(name):
    """Turn UNetMotionModel's name of a motion parameter into AnimateDiff's."""
    for new, old in ANIMATEDIFF.items():
        name = name.replace(new, old)
    return re.sub(r"(motion_modules\.\d+\.)", r"\1temporal_transformer.", name)


def _old_vae_name(name):
    if ".attentions." in name:
        for new, old in OLD_VAE_ATTENTION.items():
            name = name.replace("." + new, "." + old)
    return name


def _with_text_prefix(name):
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _half(tensors):
    return {
        n: (t.detach().half() if t.is_floating_point() else t).cpu().contiguous().clone()
        for n, t in tensors.items()
    }


def _save(path, tensors):
    save_torch(_half(tensors), path)


def _write_safetensors(path, tensors):
    with atomic(path) as partial:
        partial.write_bytes(save(_half(tensors)))  # Python names what a full disk refuses
