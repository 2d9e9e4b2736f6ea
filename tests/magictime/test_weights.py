"""The base folder in every form, and what holds for all weight files: damaged ones are refused by
name, hostile ones are not run, loading draws nothing and takes no memory before it must."""

import json
import os

import pytest
import torch

from lvd.errors import InputError
from MagicTime.utils.weights.base import load_text_encoder, load_tokenizer, load_unet, load_vae
from MagicTime.utils.weights.load import load_magictime
from MagicTime.utils.weights.motion_unet import make_motion_unet, motion_transformers
from tests.worlds import magictime_world
from tests.worlds.magictime_world import ONLY_BASE
from tests.worlds.weight_files import (  # noqa: F401
    ADAPTERS,
    BASE,
    CKPTS,
    assert_refused,
    assert_same,
    assert_state,
    copy,
    half,
    is_motion,
    read,
    write,
)


def test_base_round_trip(world):
    folder, parts = world
    model = magictime_world.load(folder, **ONLY_BASE)
    assert_state(model.unet, parts.base.unet.state_dict())
    assert_state(model.vae, parts.vae.state_dict())
    assert_state(model.text_encoder, parts.base.text_encoder.state_dict())


def test_motion_and_dreambooth_round_trip(world):
    folder, parts = world
    model = magictime_world.load(folder, **ADAPTERS)
    assert_state(
        model.unet, parts.clip.unet.state_dict()
    )  # 2D part from the DreamBooth file, motion from the motion file
    assert_state(model.text_encoder, parts.clip.text_encoder.state_dict())
    without = magictime_world.load(folder, **ADAPTERS, dreambooth_path="")
    assert_state(without.unet, parts.base.unet.state_dict())
    assert_state(without.unet, parts.clip.unet.state_dict(), is_motion)


def test_without_a_motion_file_each_frame_is_the_2d_unets(world):
    folder, parts = world
    model = magictime_world.load(folder, **ONLY_BASE)
    draw = torch.Generator().manual_seed(1)
    clips, text = torch.randn(2, 4, 3, 4, 4, generator=draw), torch.randn(2, 12, 16, generator=draw)
    unet2d = type(parts.base.unet)(**magictime_world.UNET).eval()
    unet2d.load_state_dict({k: half(t) for k, t in parts.base.unet.state_dict().items()})
    with torch.no_grad():
        found = model.unet(clips, 500, text.repeat_interleave(3, 0)).sample
        for frame in range(3):
            expected = unet2d(clips[:, :, frame], 500, text).sample
            torch.testing.assert_close(found[:, :, frame], expected, rtol=1e-4, atol=1e-5)


def test_motion_norm_normalises_each_frame_by_itself_in_32_groups(model):
    """The 2D UNet of this world has 8 groups, the motion modules always 32."""
    norm = motion_transformers(model.unet)[0].norm
    clips = torch.randn(2, norm.num_channels, 5, 3, 3) * torch.arange(1.0, 6).view(1, 1, 5, 1, 1)
    found = norm(clips)
    for frame in range(5):
        expected = torch.nn.functional.group_norm(
            clips[:, :, frame], 32, norm.weight, norm.bias, 1e-6
        )
        torch.testing.assert_close(found[:, :, frame], expected, rtol=1e-5, atol=1e-5)


def test_attention_head_dim_is_the_number_of_heads():
    unet = make_motion_unet(magictime_world.UNET)
    assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.heads == 2
    assert motion_transformers(unet)[0].transformer_blocks[0].attn1.heads == 8
    assert not hasattr(unet.mid_block, "motion_modules")


# ---- the forms in which the same base folder comes


def rewritten(folder, part, tensors, name):
    """Replace a part's weight file by one called `name`."""
    old = folder / "ckpts" / CKPTS[part]
    old.unlink()
    write(tensors, old.with_name(name))


def shards(folder, part, tensors, kind):
    """The same in two files and an index."""
    old = folder / "ckpts" / CKPTS[part]
    old.unlink()
    stem = "model" if part == "text" and kind == "safetensors" else "diffusion_pytorch_model"
    stem = "pytorch_model" if part == "text" and kind == "bin" else stem
    names, places = list(tensors), {}
    for number, half_of_them in enumerate((names[::2], names[1::2]), 1):
        file = f"{stem}-0000{number}-of-00002.{kind}"
        write({name: tensors[name] for name in half_of_them}, old.with_name(file))
        places.update(dict.fromkeys(half_of_them, file))
    index = old.with_name(f"{stem}.{kind}.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def as_bin(folder, part, tensors):
    rewritten(
        folder,
        part,
        tensors,
        "pytorch_model.bin" if part == "text" else "diffusion_pytorch_model.bin",
    )


def as_fp16(folder, part, tensors):
    rewritten(
        folder,
        part,
        tensors,
        f"{'model' if part == 'text' else 'diffusion_pytorch_model'}.fp16.safetensors",
    )


def as_fp16_bin(folder, part, tensors):
    rewritten(
        folder,
        part,
        tensors,
        "pytorch_model.fp16.bin" if part == "text" else "diffusion_pytorch_model.fp16.bin",
    )


def with_leftovers(folder, part, tensors):
    """Other variants and framework files beside the weights, as in the published folder."""
    path = folder / "ckpts" / CKPTS[part]
    for name in (
        "diffusion_pytorch_model.non_ema.safetensors",
        "model.fp16.safetensors",
        "pytorch_model.bin",
    ):
        path.with_name(name).write_bytes(b"not read")
    if part == "text":
        write(tensors | {"text_model.embeddings.position_ids": torch.arange(12)[None]}, path)
    (folder / "ckpts" / BASE / "safety_checker").mkdir(exist_ok=True)
    (folder / "ckpts" / BASE / "safety_checker" / "pytorch_model.bin").write_bytes(b"not read")


def in_todays_names(folder, part, tensors):
    names = (
        {"query.": "to_q.", "key.": "to_k.", "value.": "to_v.", "proj_attn.": "to_out.0."}
        if part == "vae"
        else {}
    )
    for old, new in names.items():
        tensors = {name.replace(old, new): t for name, t in tensors.items()}
    write(
        {name.removeprefix("text_model."): t for name, t in tensors.items()},
        folder / "ckpts" / CKPTS[part],
    )


def as_convolutions(folder, part, tensors):
    linear = ("query.weight", "key.weight", "value.weight", "proj_attn.weight")
    write(
        {
            name: t[:, :, None, None] if part == "vae" and name.endswith(linear) else t
            for name, t in tensors.items()
        },
        folder / "ckpts" / CKPTS[part],
    )


@pytest.fixture(scope="module")
def base(world):
    return magictime_world.load(world[0], **ONLY_BASE)


@pytest.mark.parametrize(
    "form",
    [
        as_bin,
        as_fp16,
        as_fp16_bin,
        with_leftovers,
        in_todays_names,
        as_convolutions,
        lambda folder, part, tensors: shards(folder, part, tensors, "safetensors"),
        lambda folder, part, tensors: shards(folder, part, tensors, "bin"),
    ],
    ids=[
        "bin",
        "fp16",
        "fp16 bin",
        "leftovers",
        "today's names",
        "convolutions",
        "shards",
        "bin shards",
    ],
)
def test_base_form(copy, base, form):  # noqa: F811
    for part in ("unet", "vae", "text"):
        form(copy, part, read(copy / "ckpts" / CKPTS[part]))
    loaded = magictime_world.load(copy, **ONLY_BASE)
    for part in ("unet", "vae", "text_encoder"):
        assert_same(getattr(loaded, part), getattr(base, part))
    left = "; 1 left out (1 position_ids)" if form is with_leftovers else ""
    assert loaded.report == {
        "pretrained_model_path": f"324 unet, 180 vae, 36 text_encoder tensors{left}"
    }


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda places: {"weight_map": [1]}, "weight_map"),
        (lambda places: {"weight_map": {"a": "../x.bin"}}, "weight_map"),
        (
            lambda places: {"weight_map": {**places, "conv_in.bias": "\0x.bin"}},
            "names no files beside it",
        ),
        (
            lambda places: {"weight_map": {**places, "conv_in.bias": "a\nb.bin"}},
            "names no files beside it",
        ),
        (
            lambda places: {"weight_map": {**places, "more": places["conv_in.bias"]}},
            "key 'more' is missing",
        ),
        (
            lambda places: {"weight_map": {n: f for n, f in places.items() if n != "conv_in.bias"}},
            "key 'conv_in.bias'",
        ),
        (
            lambda places: {"weight_map": {**places, "conv_in.bias": "absent.safetensors"}},
            "absent.safetensors",
        ),
    ],
)
def test_damaged_index(copy, change, said):  # noqa: F811
    index = shards(copy, "unet", read(copy / "ckpts" / CKPTS["unet"]), "safetensors")
    index.write_text(json.dumps(change(json.loads(index.read_text())["weight_map"])))
    assert_refused(lambda: magictime_world.load(copy), index.parent, said)


# ---- loading


def test_loading_draws_nothing_and_leaves_no_weight_without_value(world):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    loaded = magictime_world.load(world[0])
    assert torch.equal(torch.get_rng_state(), before)
    for part in (loaded.unet, loaded.vae, loaded.text_encoder):
        tensors = [*part.parameters(), *part.buffers()]
        assert all(t.device.type == "cpu" and not t.requires_grad for t in tensors)
        assert not part.training
    ids = loaded.text_encoder.get_submodule("embeddings").position_ids  # no file has it: computed
    assert torch.equal(ids, torch.arange(12)[None])


def in_float32(folder, part):
    """Rewrite a file as float32, which needs no cast. Returns its tensors."""
    path = folder / "ckpts" / CKPTS[part]
    tensors = {name: t.float() if t.is_floating_point() else t for name, t in read(path).items()}
    write(tensors, path)
    return tensors


def test_loaded_weights_are_no_longer_the_files(copy, model):  # noqa: F811
    for part in ("motion", "dreambooth"):
        in_float32(copy, part)
    loaded = magictime_world.load(copy)
    for path in (copy / "ckpts").rglob("*"):
        if path.is_file():
            with open(
                path, "r+b"
            ) as file:  # the same file, other content: what is mapped would change
                file.write(os.urandom(path.stat().st_size))
    for part in ("unet", "vae", "text_encoder"):
        assert_same(getattr(loaded, part), getattr(model, part))


def test_weights_that_share_memory_in_a_file_are_separate_in_the_model(copy):  # noqa: F811
    """torch.save keeps ties; an adapter merged into one layer must not change another."""
    tensors = in_float32(copy, "motion")
    queries = [name for name in tensors if name.endswith("attention_blocks.0.to_q.weight")][:2]
    torch.save(tensors | {queries[1]: tensors[queries[0]]}, copy / "ckpts" / CKPTS["motion"])
    unet = magictime_world.load(copy, **ADAPTERS).unet
    storages = [t.untyped_storage().data_ptr() for t in unet.parameters()]
    assert len(set(storages)) == len(storages)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_rounding_of_the_merged_weights(world, model, dtype):
    """Loaded as `dtype` or cast afterwards: the same, and buffers too."""
    block = magictime_world.model_block(world[0])
    loaded = load_magictime(
        {key: block[key] for key in ("pretrained_model_path", *ONLY_BASE)}, None, dtype=dtype
    )
    cast = magictime_world.load(world[0]).to("cpu", dtype)
    for part in ("unet", "vae", "text_encoder"):
        assert_same(getattr(loaded, part), getattr(cast, part))
        for name, tensor in getattr(model, part).state_dict().items():
            assert torch.equal(getattr(loaded, part).state_dict()[name], tensor.to(dtype)), name


# ---- hostile files


class Runs:
    """A pickle of it runs a command when it is read the ordinary way."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


HOSTILE = {
    "motion_module": "motion",
    "dreambooth_path": "dreambooth",
    "magic_adapter_s_path": "s",
    "magic_adapter_t_path": "t",
    "magic_text_encoder_path": "text_adapter",
    "unet": "unet",
    "vae": "vae",
    "text_encoder": "text",
}


@pytest.mark.parametrize(
    "key, zipped, place",
    [
        *((key, zipped, "value") for key in HOSTILE for zipped in (True, False)),
        ("motion_module", True, "tuple"),
        ("motion_module", True, "beside"),
    ],
)
def test_no_pickle_is_run(copy, tmp_path, key, place, zipped):  # noqa: F811
    path, marker = copy / "ckpts" / CKPTS[HOSTILE[key]], tmp_path / "marker"
    tensors, changes = read(path), {}
    if path.suffix == ".safetensors":
        path.unlink()
        path = (
            path.with_name("pytorch_model.bin")
            if key in ("unet", "vae", "text_encoder")
            else path.with_suffix(".ckpt")
        )
        changes = {key: path} if key == "dreambooth_path" else {}
    found = {
        "value": {**tensors, "more": Runs(marker)},
        "beside": {"state_dict": tensors, "callbacks": [Runs(marker)]},
    }
    torch.save(
        found.get(place, (Runs(marker), tensors)), path, _use_new_zipfile_serialization=zipped
    )
    assert_refused(lambda: magictime_world.load(copy, **changes), path, "no pickled code is run")
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # it would have


# ---- files that do not fit


# part: (end of a stored key, what the error calls it when it is missing: today's name, or the half
# that stands alone)
KEYS = {
    "unet": ("attn1.to_q.weight", "attn1.to_q.weight"),
    "vae": ("query.weight", "to_q.weight"),
    "text": ("self_attn.q_proj.weight", "self_attn.q_proj.weight"),
    "motion": ("attention_blocks.0.to_q.weight", "attn1.to_q.weight"),
    "dreambooth": ("attn1.to_q.weight", "attn1.to_q.weight"),
    "s": ("attn1.processor.to_q_lora.up.weight", "attn1.processor.to_q_lora.down.weight"),
    "t": ("to_q.lora_B.default.weight", "to_q.lora_A.default.weight"),
    "text_adapter": ("q_proj.lora_B.default.weight", "q_proj.lora_A.default.weight"),
}


@pytest.mark.parametrize("part", CKPTS)
@pytest.mark.parametrize(
    "damage", ["missing key", "unknown key", "wrong shape", "truncated", "absent"]
)
def test_damaged_file_is_refused_by_name(copy, part, damage):
    path = copy / "ckpts" / CKPTS[part]
    named = damage_file(path, damage, *KEYS[part])
    with pytest.raises(InputError) as refused:
        magictime_world.load(copy)
    message = str(refused.value)
    assert "\n" not in message and named in message
    assert (
        str(path.parent if damage == "absent" else path) in message
    )  # some absent files are named by their folder


@pytest.mark.parametrize("part", CKPTS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_weights_that_are_not_finite(copy, part, value):
    path = copy / "ckpts" / CKPTS[part]
    tensors = read(path)
    key = next(name for name in tensors if name.endswith(KEYS[part][0]))
    tensors[key].view(-1)[-1] = float(value)
    write(tensors, path)
    changes = ADAPTERS if part in ("unet", "vae", "text") else {}
    changes = (
        {**changes, "dreambooth_path": ""} if changes else {}
    )  # which would replace these weights
    end = KEYS[part][0] if part in ("s", "t", "text_adapter") else KEYS[part][1]
    assert_refused(
        lambda: magictime_world.load(copy, **changes),
        path,
        f"{end}' holds values that are not finite in torch.float",
    )


def test_weights_that_are_not_finite_in_half_precision(copy):
    tensors = in_float32(copy, "motion")
    key = next(name for name in tensors if name.endswith("to_q.weight"))
    tensors[key][0, 0] = 1e5
    torch.save(tensors, copy / "ckpts" / CKPTS["motion"])
    block = {**magictime_world.model_block(copy), **ADAPTERS}
    paths = {key: block[key] for key in ("pretrained_model_path", *ONLY_BASE)}
    assert load_magictime(paths, None, dtype=torch.bfloat16)
    assert_refused(
        lambda: load_magictime(paths, None, dtype=torch.float16),
        block["motion_module"],
        "in torch.float16",
    )


def damage_file(path, damage, end, missing):
    """Damage it and return what the error has to say besides the file."""
    if damage == "absent":
        path.unlink()
        return "no"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return "not a readable"
    tensors = read(path)
    key = next(name for name in tensors if name.endswith(end))
    if damage == "missing key":
        del tensors[key]
        named = missing
    elif damage == "unknown key":
        tensors[key.replace("0", "7")] = tensors[key].clone()
        named = "has no place"
    else:
        tensors[key] = tensors[key][:-1].clone()
        named = "has shape"
    write(tensors, path)
    return named


def test_foreign_files(copy):
    for key, name in (
        ("motion_module", "motion"),
        ("dreambooth_path", "unet"),
        ("magic_adapter_s_path", "motion"),
    ):
        with pytest.raises(InputError, match="no key|not of the form"):
            magictime_world.load(
                copy, **{key: copy / "ckpts" / CKPTS[name if key != "motion_module" else "s"]}
            )


# ---- configs and tokenizers that cannot be used


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize(
    "change, said",
    [
        (None, "a mapping is needed"),
        ({"block_out_channels": None}, "block_out_channels=None"),
        ({"block_out_channels": "a"}, "block_out_channels='a'"),
        ({"down_block_types": ["Nope"] * 3}, "Nope"),
        ({"norm_num_groups": 0}, "not usable"),
        ({"act_fn": "zz"}, "zz"),
    ],
)
def test_unusable_part_config(copy, part, change, said):
    path = copy / "ckpts" / BASE / part / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps([1] if change is None else config | change))
    load = {
        "unet": lambda: load_unet(copy / "ckpts" / BASE, 8, 32, False),
        "vae": lambda: load_vae(copy / "ckpts" / BASE),
    }
    assert_refused(load[part], path, said)


@pytest.mark.parametrize(
    "part, change, said",
    [
        ("vae", {"scaling_factor": "x"}, "scaling_factor"),
        ("text_encoder", {"hidden_size": "x"}, "hidden_size"),
        ("text_encoder", {"hidden_act": "nope"}, "nope"),
    ],
)
def test_unusable_value_in_a_part_config(copy, part, change, said):
    path = copy / "ckpts" / BASE / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert_refused(
        lambda: (load_vae if part == "vae" else load_text_encoder)(copy / "ckpts" / BASE),
        path,
        said,
    )


@pytest.mark.parametrize(
    "name, text",
    [
        ("vocab.json", '{"a": 1, "b'),
        ("vocab.json", "[1]"),
        ("vocab.json", "{}"),
        ("merges.txt", "#version: 0.2\nq\n"),
        ("merges.txt", "#version: 0.2\nqq zz\n"),
        ("merges.txt", b"\xff\xfe"),
        ("tokenizer_config.json", '{"bos_token": '),
        ("tokenizer_config.json", "[]"),
        ("special_tokens_map.json", '{"bos'),
    ],
)
def test_damaged_tokenizer(tmp_path, name, text):
    magictime_world.write_tokenizer(tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_refused(lambda: load_tokenizer(tmp_path), tmp_path / "tokenizer", name)
