"""Every weight file form: what is exported is what is loaded, and a file that does not fit is refused by name."""

import json
import math
import shutil

import pytest
import torch
import worlds
from safetensors.torch import load_file, save_file

from lvd.errors import InputError
from MagicTime.utils.base import load_text_encoder, load_tokenizer, load_unet, load_vae
from MagicTime.utils.motion_unet import make_motion_unet, motion_transformers
from worlds import ONLY_BASE

CKPTS = {
    "unet": "Base_Model/stable-diffusion-v1-5/unet/diffusion_pytorch_model.safetensors",
    "vae": "Base_Model/stable-diffusion-v1-5/vae/diffusion_pytorch_model.safetensors",
    "text": "Base_Model/stable-diffusion-v1-5/text_encoder/model.safetensors",
    "motion": "Base_Model/motion_module/motion_module.ckpt",
    "dreambooth": "DreamBooth/TinyWorld.safetensors",
    "s": "Magic_Weights/magic_adapter_s/magic_adapter_s.ckpt",
    "t": "Magic_Weights/magic_adapter_t/default/adapter_model.bin",
    "text_adapter": "Magic_Weights/magic_text_encoder/default/adapter_model.bin"}


@pytest.fixture
def copy(world, tmp_path):
    """A copy of the world that a test may damage."""
    shutil.copytree(world[0] / "ckpts", tmp_path / "ckpts")
    return tmp_path


def read(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def write(tensors, path):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


def half(tensor):
    return tensor.detach().half().float()


def assert_state(module, expected, wanted=lambda name: True):
    """Each wanted tensor of `module` equals the float16 rounding of `expected`'s."""
    names = [name for name in expected if wanted(name) and not name.endswith("pos_embed.pe")]
    assert names
    found = module.state_dict()
    for name in names:
        torch.testing.assert_close(found[name], half(expected[name]), rtol=0, atol=0, msg=name)


def is_motion(name):
    return "motion_modules." in name


def test_base_round_trip(world):
    folder, parts = world
    model = worlds.load(folder, **ONLY_BASE)
    assert_state(model.unet, parts.base.unet.state_dict())
    assert_state(model.vae, parts.vae.state_dict())
    assert_state(model.text_encoder, parts.base.text_encoder.state_dict())


def test_motion_and_dreambooth_round_trip(world):
    folder, parts = world
    adapters = {key: "" for key in ONLY_BASE if key.startswith("magic")}
    model = worlds.load(folder, **adapters)
    assert_state(model.unet, parts.clip.unet.state_dict())  # 2D part from the DreamBooth file, motion from the motion file
    assert_state(model.text_encoder, parts.clip.text_encoder.state_dict())
    without = worlds.load(folder, **adapters, dreambooth_path="")
    assert_state(without.unet, parts.base.unet.state_dict())
    assert_state(without.unet, parts.clip.unet.state_dict(), is_motion)


def test_adapters_are_added_with_their_scales(world):
    """S: (2 up) @ (2 down); T and text: lora_alpha / r = 2, in the names of either library."""
    folder, parts = world
    model = worlds.load(folder)
    before = worlds.load(folder, **{key: "" for key in ONLY_BASE if key.startswith("magic")})
    for key, part, scale in (("s", "unet", 4), ("t", "unet", 2), ("text", "text_encoder", 2)):
        new, old = getattr(model, part).state_dict(), getattr(before, part).state_dict()
        assert len(parts.adapters[key]) >= 8
        for name, (down, up) in parts.adapters[key].items():
            expected = old[f"{name}.weight"] + scale * half(up) @ half(down)
            torch.testing.assert_close(new[f"{name}.weight"], expected, rtol=1e-5, atol=1e-6)


def test_weights_that_no_adapter_names_stay(world, model):
    folder, parts = world
    touched = {f"{name}.weight" for key in ("s", "t") for name in parts.adapters[key]}
    assert_state(model.unet, parts.clip.unet.state_dict(), lambda name: name not in touched)


def test_without_a_motion_file_each_frame_is_the_2d_unets(world):
    folder, parts = world
    model = worlds.load(folder, **ONLY_BASE)
    draw = torch.Generator().manual_seed(1)
    clips, text = torch.randn(2, 4, 3, 4, 4, generator=draw), torch.randn(2, 12, 16, generator=draw)
    unet2d = type(parts.base.unet)(**worlds.UNET).eval()
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
        expected = torch.nn.functional.group_norm(clips[:, :, frame], 32, norm.weight, norm.bias, 1e-6)
        torch.testing.assert_close(found[:, :, frame], expected, rtol=1e-5, atol=1e-5)


def test_attention_head_dim_is_the_number_of_heads():
    unet = make_motion_unet(worlds.UNET)
    assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.heads == 2
    assert motion_transformers(unet)[0].transformer_blocks[0].attn1.heads == 8
    assert not hasattr(unet.mid_block, "motion_modules")


# ---- the forms in which the same weights come


def test_motion_file_wrapped_with_module_prefix_and_other_keys(copy, model):
    path = copy / "ckpts" / CKPTS["motion"]
    wrapped = {f"module.{name}": t for name, t in read(path).items()} | {"module.conv_in.weight": torch.zeros(32, 4, 3, 3)}
    torch.save({"epoch": 3, "state_dict": wrapped}, path)
    assert_same(worlds.load(copy).unet, model.unet)


def test_base_as_bin_with_position_ids(copy, model):
    for part in ("unet", "vae", "text"):
        path = copy / "ckpts" / CKPTS[part]
        tensors = read(path)
        if part == "text":
            tensors["text_model.embeddings.position_ids"] = torch.arange(12)[None]
        name = "pytorch_model.bin" if part == "text" else "diffusion_pytorch_model.bin"
        torch.save(tensors, path.with_name(name))
        path.unlink()
    assert_same(worlds.load(copy, **ONLY_BASE).vae, model.vae)
    assert_same(worlds.load(copy).text_encoder, model.text_encoder)


def test_vae_and_text_with_todays_names(copy, model):
    path = copy / "ckpts" / CKPTS["vae"]
    names = {"query.": "to_q.", "key.": "to_k.", "value.": "to_v.", "proj_attn.": "to_out.0."}
    tensors = read(path)
    for old, new in names.items():
        tensors = {name.replace(old, new): t for name, t in tensors.items()}
    write(tensors, path)
    path = copy / "ckpts" / CKPTS["text"]
    write({name.removeprefix("text_model."): t for name, t in read(path).items()}, path)
    assert_same(worlds.load(copy, dreambooth_path="").vae, model.vae)


def test_dreambooth_as_ckpt_without_text_and_with_leftovers(copy, world, model):
    path = copy / "ckpts" / CKPTS["dreambooth"]
    tensors = {n: t for n, t in read(path).items() if not n.startswith("cond_stage_model.")}
    leftovers = {"betas": torch.zeros(1000), "model_ema.decay": torch.zeros(1), "alphas_cumprod": torch.zeros(1000)}
    torch.save({"global_step": 7, "state_dict": tensors | leftovers}, path.with_suffix(".ckpt"))
    loaded = worlds.load(copy, dreambooth_path=path.with_suffix(".ckpt"), magic_text_encoder_path="")
    assert_same(loaded.unet, model.unet)
    assert_state(loaded.text_encoder, world[1].base.text_encoder.state_dict())


@pytest.mark.parametrize("rename", [
    lambda name: name.replace(".default", ""),
    lambda name: f"base_model.model.{name}",
    lambda name: name.replace(".lora_", ".loramodule_default.lora_").replace(".default.weight", ".weight"),
], ids=["no adapter name", "peft prefix", "old swift names"])
def test_peft_key_forms(copy, model, rename):
    for key in ("t", "text_adapter"):
        path = copy / "ckpts" / CKPTS[key]
        write({rename(name): t for name, t in read(path).items()}, path)
    loaded = worlds.load(copy)
    assert_same(loaded.unet, model.unet)
    assert_same(loaded.text_encoder, model.text_encoder)


@pytest.mark.parametrize("place", [".", "my_adapter"])
def test_peft_folder_forms(copy, model, place):
    """safetensors instead of .bin; in the folder itself, or in one of another name."""
    for key in ("t", "text_adapter"):
        path = copy / "ckpts" / CKPTS[key]
        home = path.parent.parent / place
        home.mkdir(exist_ok=True)
        save_file(read(path), home / "adapter_model.safetensors")
        shutil.move(path.parent / "adapter_config.json", home / "adapter_config.json")
        shutil.rmtree(path.parent)
    loaded = worlds.load(copy)
    assert_same(loaded.unet, model.unet)
    assert_same(loaded.text_encoder, model.text_encoder)


@pytest.mark.parametrize("change, scales", [
    ({"lora_alpha": 6}, (3, 3)),
    ({"lora_alpha": 3, "use_rslora": True}, (3 / math.sqrt(2), 3 / math.sqrt(2))),
    ({"alpha_pattern": {"q_proj": 10}}, (5, 2)),
    ({"r": 8, "rank_pattern": {"self_attn.q_proj": 2, "layers.[01].self_attn.(k_proj|v_proj|out_proj)": 2}}, (2, 2)),
], ids=["alpha", "rslora", "alpha_pattern", "rank_pattern"])
def test_peft_scales(copy, world, change, scales):
    path = copy / "ckpts" / "Magic_Weights/magic_text_encoder/default/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    new = worlds.load(copy).text_encoder.state_dict()
    old = worlds.load(copy, magic_text_encoder_path="").text_encoder.state_dict()
    for layer, scale in zip(("encoder.layers.1.self_attn.q_proj", "encoder.layers.1.self_attn.v_proj"), scales):
        name = next(n for n in world[1].adapters["text"] if n.endswith(layer))
        down, up = world[1].adapters["text"][name]
        torch.testing.assert_close(new[f"{name}.weight"] - old[f"{name}.weight"], scale * half(up) @ half(down),
                                   rtol=1e-3, atol=1e-5)


def assert_same(module, other):
    expected = other.state_dict()
    assert module.state_dict().keys() == expected.keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


# ---- files that do not fit


# part: (end of a stored key, what the error calls it when it is missing: today's name, or the half that stands alone)
KEYS = {
    "unet": ("attn1.to_q.weight", "attn1.to_q.weight"), "vae": ("query.weight", "to_q.weight"),
    "text": ("self_attn.q_proj.weight", "self_attn.q_proj.weight"),
    "motion": ("attention_blocks.0.to_q.weight", "attn1.to_q.weight"),
    "dreambooth": ("attn1.to_q.weight", "attn1.to_q.weight"),
    "s": ("attn1.processor.to_q_lora.up.weight", "attn1.processor.to_q_lora.down.weight"),
    "t": ("to_q.lora_B.default.weight", "to_q.lora_A.default.weight"),
    "text_adapter": ("q_proj.lora_B.default.weight", "q_proj.lora_A.default.weight")}


@pytest.mark.parametrize("part", CKPTS)
@pytest.mark.parametrize("damage", ["missing key", "unknown key", "wrong shape", "truncated", "absent"])
def test_damaged_file_is_refused_by_name(copy, part, damage):
    path = copy / "ckpts" / CKPTS[part]
    named = damage_file(path, damage, *KEYS[part])
    with pytest.raises(InputError) as refused:
        worlds.load(copy)
    message = str(refused.value)
    assert "\n" not in message and named in message
    assert str(path.parent if damage == "absent" else path) in message  # some absent files are named by their folder


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


def test_wrong_position_table(copy):
    path = copy / "ckpts" / CKPTS["motion"]
    tensors = read(path)
    name = next(n for n in tensors if n.endswith("pos_encoder.pe"))
    write(tensors | {name: tensors[name].flip(1)}, path)
    with pytest.raises(InputError, match="position table"):
        worlds.load(copy)
    write(tensors | {name: tensors[name][:, :24].clone()}, path)
    with pytest.raises(InputError, match="24"):
        worlds.load(copy)


@pytest.mark.parametrize("change, said", [
    ({"use_dora": True}, "use_dora"), ({"r": 0}, "r=0"), ({"lora_alpha": None}, "lora_alpha")])
def test_unsupported_adapter_config(copy, change, said):
    path = copy / "ckpts" / "Magic_Weights/magic_adapter_t/default/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=said):
        worlds.load(copy)


def test_foreign_files(copy):
    for key, name in (("motion_module", "motion"), ("dreambooth_path", "unet"), ("magic_adapter_s_path", "motion")):
        with pytest.raises(InputError, match="no key|not of the form"):
            worlds.load(copy, **{key: copy / "ckpts" / CKPTS[name if key != "motion_module" else "s"]})


# ---- configs and tokenizers that cannot be used

BASE = "Base_Model/stable-diffusion-v1-5"
ADAPTER = "Magic_Weights/magic_adapter_t/default/adapter_config.json"


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize("change, said", [
    (None, "a mapping is needed"), ({"block_out_channels": None}, "block_out_channels=None"),
    ({"block_out_channels": "a"}, "block_out_channels='a'"),
    ({"down_block_types": ["Nope"] * 3}, "Nope"), ({"norm_num_groups": 0}, "not usable"), ({"act_fn": "zz"}, "zz")])
def test_unusable_part_config(copy, part, change, said):
    path = copy / "ckpts" / BASE / part / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps([1] if change is None else config | change))
    load = {"unet": lambda: load_unet(copy / "ckpts" / BASE, 8, 32, False), "vae": lambda: load_vae(copy / "ckpts" / BASE)}
    assert_refused(load[part], path, said)


@pytest.mark.parametrize("part, change, said", [
    ("vae", {"scaling_factor": "x"}, "scaling_factor"), ("text_encoder", {"hidden_size": "x"}, "hidden_size"),
    ("text_encoder", {"hidden_act": "nope"}, "nope")])
def test_unusable_value_in_a_part_config(copy, part, change, said):
    path = copy / "ckpts" / BASE / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert_refused(lambda: (load_vae if part == "vae" else load_text_encoder)(copy / "ckpts" / BASE), path, said)


@pytest.mark.parametrize("name, text", [
    ("vocab.json", '{"a": 1, "b'), ("vocab.json", "[1]"), ("vocab.json", "{}"), ("merges.txt", "#version: 0.2\nq\n"),
    ("merges.txt", "#version: 0.2\nqq zz\n"), ("merges.txt", b"\xff\xfe"), ("tokenizer_config.json", '{"bos_token": '),
    ("tokenizer_config.json", "[]"), ("special_tokens_map.json", '{"bos')])
def test_damaged_tokenizer(tmp_path, name, text):
    worlds.write_tokenizer(tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_refused(lambda: load_tokenizer(tmp_path), tmp_path / "tokenizer", name)


@pytest.mark.parametrize("change, said", [
    (None, "a mapping is needed"), ({"r": 4}, ".lora_A.default.weight' has rank 2, adapter_config.json says 4"),
    ({"rank_pattern": {"to_k": 8}}, "to_k.lora_A.default.weight' has rank 2, adapter_config.json says 8"),
    ({"rank_pattern": [1]}, "rank_pattern"), ({"alpha_pattern": {"(": 1}}, "alpha_pattern"),
    ({"r": True}, "r=True")])
def test_adapter_config_that_does_not_fit_the_weights(copy, change, said):
    path = copy / "ckpts" / ADAPTER
    path.write_text(json.dumps([1] if change is None else json.loads(path.read_text()) | change))
    assert_refused(lambda: worlds.load(copy), path.parent, said)


def test_one_of_several_adapters_is_not_picked(copy):
    folder = (copy / "ckpts" / ADAPTER).parent
    for name in ("first", "second"):
        shutil.copytree(folder, folder.parent / name)
    assert worlds.load(copy)  # `default` wins
    shutil.rmtree(folder)
    assert_refused(lambda: worlds.load(copy), folder.parent, "several adapters here (first, second)")


def assert_refused(load, path, said):
    with pytest.raises(InputError) as refused:
        load()
    assert str(path) in str(refused.value) and said in str(refused.value) and "\n" not in str(refused.value)
