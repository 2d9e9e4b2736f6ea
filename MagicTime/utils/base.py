"""The base folder (Stable Diffusion 1.5 in diffusers' layout): tokenizer, text encoder, VAE and 2D UNet."""

from pathlib import Path

from lvd.errors import InputError
from lvd.files import load_json

from .motion_unet import load_2d, make_motion_unet, silence_motion
from .tensors import load_exactly, read_tensors

# An old VAE's attention layer (diffusers up to 0.13) → today's names.
OLD_ATTENTION = {"query.": "to_q.", "key.": "to_k.", "value.": "to_v.", "proj_attn.": "to_out.0."}
TEXT_PREFIX = "text_model."  # CLIPTextModel's parameters bear it in files and before transformers 5, not today
WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors", "diffusion_pytorch_model.bin",
                "pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors")


def weight_file(folder):
    """The weights in a part's folder: safetensors before .bin, full precision before half."""
    for name in WEIGHT_FILES:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise InputError(f"{folder}: no weights here, one of {', '.join(WEIGHT_FILES[:4])} is needed")


def part_config(base, part):
    """config.json of `part` ("unet", "vae", "text_encoder") of the base folder."""
    if not Path(base).is_dir():
        raise InputError(f"pretrained_model_path {base}: no such folder")
    return load_json(Path(base) / part / "config.json")


def load_unet(base, heads, max_length, mid_block):
    """UNetMotionModel with the base's 2D weights; its motion modules are random but inert until loaded."""
    folder = Path(base) / "unet"
    unet = make_motion_unet(part_config(base, "unet"), heads, max_length, mid_block)
    path = weight_file(folder)
    count = load_2d(silence_motion(unet), read_tensors(path), path)
    return unet.eval(), count


def load_vae(base):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_config(part_config(base, "vae"))
    path = weight_file(Path(base) / "vae")
    tensors = {todays_vae_name(name): t for name, t in read_tensors(path).items()}
    return vae.eval(), load_exactly(vae, as_linear(tensors, vae), path)


def todays_vae_name(name):
    if ".attentions." in name:
        for old, new in OLD_ATTENTION.items():
            name = name.replace("." + old, "." + new)
    return name


def as_linear(tensors, module):
    """Attention weights stored as 1x1 convolutions [out, in, 1(, 1)] reshaped where `module` has a Linear [out, in]."""
    homes = module.state_dict()
    linear = {name for name, t in tensors.items() if name in homes and homes[name].dim() == 2 and set(t.shape[2:]) == {1}}
    return {name: t.flatten(1) if name in linear else t for name, t in tensors.items()}


def load_text_encoder(base):
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder = CLIPTextModel(CLIPTextConfig.from_dict(part_config(base, "text_encoder")))
    path = weight_file(Path(base) / "text_encoder")
    return encoder.eval(), load_text(encoder, read_tensors(path), path)


def load_text(encoder, tensors, source):
    """Load CLIP text weights, with or without `text_model.` and the position_ids of older files."""
    ignored = ("position_ids", "text_projection.weight", "logit_scale")  # in some files, used by no CLIPTextModel
    homes = {name.removeprefix(TEXT_PREFIX): name for name in encoder.state_dict()}
    renamed = {name.removeprefix(TEXT_PREFIX): t for name, t in tensors.items() if not name.endswith(ignored)}
    return load_exactly(encoder, {homes.get(name, name): t for name, t in renamed.items()}, source)


def load_tokenizer(base):
    from transformers import CLIPTokenizer

    folder = Path(base) / "tokenizer"
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; the base folder needs a CLIP tokenizer")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
