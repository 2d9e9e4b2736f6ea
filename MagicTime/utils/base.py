"""The base folder (Stable Diffusion 1.5 in diffusers' layout): tokenizer, text encoder, VAE and 2D UNet."""

from contextlib import contextmanager
from pathlib import Path

from lvd.errors import InputError
from lvd.files import load_json, read_text

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
    """config.json of `part` ("unet", "vae", "text_encoder") of the base folder: {key: value}."""
    if not Path(base).is_dir():
        raise InputError(f"pretrained_model_path {base}: no such folder")
    path = Path(base) / part / "config.json"
    config = _mapping(path)
    if part != "text_encoder":
        channels = config.get("block_out_channels")
        if not isinstance(channels, list) or not channels or not all(type(n) is int and n > 0 for n in channels):
            raise InputError(f"{path}: block_out_channels={channels!r}, a list of whole numbers is needed")
    return config


def _mapping(path):
    """A JSON file's mapping."""
    found = load_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, a mapping is needed")
    return found


@contextmanager
def _named(source):
    """What the libraries raise at a config that they cannot use, as InputError naming `source`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except Exception as error:  # tokenizers raises bare ones, diffusers and transformers whatever a value led them to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{source}: not usable ({reason})") from error


def load_unet(base, heads, max_length, mid_block):
    """UNetMotionModel with the base's 2D weights; its motion modules are random but inert until loaded."""
    folder = Path(base) / "unet"
    config = part_config(base, "unet")
    with _named(folder / "config.json"):
        unet = make_motion_unet(config, heads, max_length, mid_block)
    path = weight_file(folder)
    count = load_2d(silence_motion(unet), read_tensors(path), path)
    return unet.eval(), count


def load_vae(base):
    from diffusers import AutoencoderKL

    folder, config = Path(base) / "vae", part_config(base, "vae")
    with _named(folder / "config.json"):
        vae = AutoencoderKL.from_config(config)
    scaling = vae.config.scaling_factor
    if type(scaling) not in (int, float) or not scaling > 0:
        raise InputError(f"{folder / 'config.json'}: scaling_factor={scaling!r}, a number above 0 is needed")
    path = weight_file(folder)
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

    folder, config = Path(base) / "text_encoder", part_config(base, "text_encoder")
    with _named(folder / "config.json"):
        encoder = CLIPTextModel(CLIPTextConfig.from_dict(config))
    path = weight_file(folder)
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
    for path in folder.glob("*.json"):
        _mapping(path)
    read_text(folder / "merges.txt")
    with _named(f"{folder}: vocab.json, merges.txt and tokenizer_config.json"):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer("?")  # a vocabulary without the special tokens shows only here
    return tokenizer
