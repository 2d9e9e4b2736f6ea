"""The base folder, Stable Diffusion 1.5 in diffusers' layout.

Its parts are the tokenizer, the text encoder, the VAE and the 2D UNet.
"""

from contextlib import contextmanager
from pathlib import Path

from lvd.errors import InputError, shorten, words_of
from lvd.utils.files import load_json, read_text
from MagicTime.utils.config import DOWNLOAD
from MagicTime.utils.weights.tensors import (
    leave_out,
    load_exactly,
    read_tensors,
    rename,
    without_weights,
)

# An old VAE's attention layer (diffusers up to 0.13) → today's names.
OLD_ATTENTION = {"query.": "to_q.", "key.": "to_k.", "value.": "to_v.", "proj_attn.": "to_out.0."}
# CLIPTextModel's parameters bear it in files and before transformers 5, not today
TEXT_PREFIX = "text_model."
# Keys of older text encoder files, and of whole CLIP models, that no CLIPTextModel uses.
TEXT_LEFT_OUT = {
    "position_ids": r"(text_model\.)?embeddings\.position_ids",
    "CLIP projection": r"text_projection(\.weight)?|logit_scale",
}
# safetensors before .bin, full precision before half, one file before shards
WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.bin",
    "pytorch_model.fp16.bin",
)
# Numbers in a config.json: of layers, and of anything else.
LAYERS = ("layers_per_block", "transformer_layers_per_block", "num_hidden_layers")
MOST_LAYERS = 100
LARGEST = 1_000_000
INDEX_FILES = tuple(f"{name}.index.json" for name in WEIGHT_FILES)


def read_weights(folder):
    """Read a part's folder, in one file or in shards: ({name: tensor}, the file they come from)."""
    folder = Path(folder)
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return read_tensors(folder / name), folder / name
    for name in INDEX_FILES:
        if (folder / name).is_file():
            return _read_shards(folder / name), folder / name
    raise InputError(f"{folder}: no weights here, one of {', '.join(WEIGHT_FILES[:4])} is needed")


def _read_shards(index):
    """Read the files that an index names; each tensor must be where the index says."""
    places = read_mapping(index).get("weight_map")
    if not isinstance(places, dict) or not all(map(_is_file_name, places.values())):
        raise InputError(f"{index}: weight_map is missing or names no files beside it")
    tensors = {}
    for file in sorted(set(places.values())):
        for name, tensor in read_tensors(index.parent / file).items():
            if places.get(name) != file:
                raise InputError(
                    f"{index.parent / file}: key '{name}' is not where {index.name} says"
                )
            tensors[name] = tensor
    if lost := next((name for name in places if name not in tensors), None):
        raise InputError(f"{index}: key '{lost}' is missing in {places[lost]}")
    return tensors


def _is_file_name(name):
    """Tell whether `name` is a file name without folders or control characters."""
    return isinstance(name, str) and Path(name).name == name and name.isprintable()


def part_config(base, part):
    """Read config.json of a part ("unet", "vae", "text_encoder") of the base folder."""
    if not Path(base).is_dir():
        raise InputError(f"pretrained_model_path {base}: no such folder; {DOWNLOAD}")
    path = Path(base) / part / "config.json"
    config = read_mapping(path)
    _need_sizes(config, path)
    if part != "text_encoder":
        channels = config.get("block_out_channels")
        if (
            not isinstance(channels, list)
            or not channels
            or not all(type(n) is int and n > 0 for n in channels)
        ):
            raise InputError(
                f"{path}: block_out_channels={shorten(channels)}, a list of whole numbers is needed"
            )
    return config


def _need_sizes(config, path):
    """Refuse sizes that no model of this kind has: the libraries would build it for hours."""
    for key, value in config.items():
        most = MOST_LAYERS if key in LAYERS else LARGEST
        for size in value if isinstance(value, list) else [value]:
            if type(size) in (int, float) and not abs(size) <= most:
                raise InputError(
                    f"{path}: {key}={shorten(value)}, a number of at most {most} is needed"
                )
        if isinstance(value, list) and len(value) > MOST_LAYERS:
            raise InputError(
                f"{path}: {key} has {len(value)} entries, {MOST_LAYERS} at most are needed"
            )


def read_mapping(path):
    """Read a JSON file that holds a mapping."""
    mapping = load_json(path)
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: holds a {type(mapping).__name__}, a mapping is needed")
    return mapping


@contextmanager
def _named(source):
    """Turn what the libraries raise at a config into an InputError that names `source`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    # tokenizers raises bare ones, diffusers and transformers whatever a value led them to
    except Exception as error:
        raise InputError(f"{source}: not usable ({words_of(error)})") from error


def load_unet(base, heads=8, max_length=32, mid_block=False):
    """Make the UNet with the base's 2D weights; its motion modules have no values yet.

    Args:
        base: the base folder.
        heads, max_length, mid_block: of the motion modules, as in `make_motion_unet`.

    Returns:
        (UNetMotionModel, the number of its 2D tensors).
    """
    from MagicTime.utils.weights.motion_unet import load_2d, make_motion_unet

    folder = Path(base) / "unet"
    config = part_config(base, "unet")
    with _named(folder / "config.json"), without_weights():
        unet = make_motion_unet(config, heads, max_length, mid_block)
    return unet, load_2d(unet, *read_weights(folder))


def load_vae(base):
    """Load the base's VAE: (AutoencoderKL, the number of its tensors)."""
    from diffusers import AutoencoderKL

    folder = Path(base) / "vae"
    config = part_config(base, "vae")
    with _named(folder / "config.json"), without_weights():
        vae = AutoencoderKL.from_config(config)
    scaling = vae.config.scaling_factor
    if type(scaling) not in (int, float) or not 0 < scaling < 1e6:
        raise InputError(
            f"{folder / 'config.json'}: scaling_factor={shorten(scaling)}, a number above 0 (below "
            "1000000) is needed"
        )
    tensors, path = read_weights(folder)
    return vae, load_exactly(vae, as_linear(rename(tensors, todays_vae_name, path), vae), path)


def todays_vae_name(name):
    """Turn an old name of a VAE's attention weight into today's."""
    if ".attentions." in name:
        for old, new in OLD_ATTENTION.items():
            name = name.replace("." + old, "." + new)
    return name


def as_linear(tensors, module):
    """Reshape attention weights stored as 1x1 convolutions [out, in, 1(, 1)].

    Only those for which `module` has a Linear [out, in].
    """
    homes = module.state_dict()
    linear = {
        name
        for name, t in tensors.items()
        if name in homes and homes[name].dim() == 2 and set(t.shape[2:]) == {1}
    }
    return {name: t.flatten(1) if name in linear else t for name, t in tensors.items()}


def load_text_encoder(base):
    """Load the base's text encoder: (CLIPTextModel, its number of tensors, those left out)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = Path(base) / "text_encoder"
    config = part_config(base, "text_encoder")
    with _named(folder / "config.json"), without_weights():
        encoder = CLIPTextModel(CLIPTextConfig.from_dict(config))
    return encoder, *load_text(encoder, *read_weights(folder))


def load_text(encoder, tensors, source):
    """Load CLIP text weights, whose names may begin with `text_model.`.

    Returns:
        (their number, Counter of those left out).
    """
    kept, left = leave_out(tensors, TEXT_LEFT_OUT)
    homes = {name.removeprefix(TEXT_PREFIX): name for name in encoder.state_dict()}
    renamed = rename(kept, lambda name: homes.get(name.removeprefix(TEXT_PREFIX), name), source)
    return load_exactly(encoder, renamed, source), left


def load_tokenizer(base):
    """Load the base's CLIPTokenizer."""
    from transformers import CLIPTokenizer

    folder = Path(base) / "tokenizer"
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: no such file; the base folder needs a CLIP tokenizer"
            )
    for path in folder.glob("*.json"):
        read_mapping(path)
    read_text(folder / "merges.txt")
    with _named(f"{folder}: vocab.json, merges.txt and tokenizer_config.json"):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer("?")  # a vocabulary without the special tokens shows only here
    return tokenizer
