"""Every form of the adapters S, T and the text encoder's gives the same merged weights; what PEFT
would read otherwise is refused by name."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import save_file

from lvd.errors import InputError
from MagicTime.utils.weights import patterns
from MagicTime.utils.weights.adapters import merge_adapter_s, merge_adapter_t, merge_text_adapter
from MagicTime.utils.weights.base import load_text_encoder
from tests.worlds import magictime_world
from tests.worlds.weight_files import (  # noqa: F401
    ADAPTERS,
    CKPTS,
    assert_refused,
    assert_same,
    assert_state,
    copy,
    half,
    read,
    write,
)

CONFIG_T = "Magic_Weights/magic_adapter_t/default/adapter_config.json"
CONFIG_TEXT = "Magic_Weights/magic_text_encoder/default/adapter_config.json"


@pytest.fixture(scope="module")
def bare(world):
    """The world without its adapters."""
    return magictime_world.load(world[0], **ADAPTERS)


def change_config(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_adapters_are_added_with_their_scales(world, model, bare):
    """S: (2 up) @ (2 down); T and text: lora_alpha / r = 2, in the names of either library."""
    parts = world[1]
    for key, part, scale in (("s", "unet", 4), ("t", "unet", 2), ("text", "text_encoder", 2)):
        new, old = getattr(model, part).state_dict(), getattr(bare, part).state_dict()
        assert len(parts.adapters[key]) >= 8
        for name, (down, up) in parts.adapters[key].items():
            expected = old[f"{name}.weight"] + scale * half(up) @ half(down)
            torch.testing.assert_close(new[f"{name}.weight"], expected, rtol=1e-5, atol=1e-6)
    counts = {
        "magic_adapter_s_path": "s",
        "magic_adapter_t_path": "t",
        "magic_text_encoder_path": "text",
    }
    for key, name in counts.items():
        assert model.report[key] == f"{len(parts.adapters[name])} layers merged"


def test_weights_that_no_adapter_names_stay(world, model):
    parts = world[1]
    touched = {f"{name}.weight" for key in ("s", "t") for name in parts.adapters[key]}
    assert_state(model.unet, parts.clip.unet.state_dict(), lambda name: name not in touched)


def test_half_weights_are_merged_in_float32(world):
    """1 + 2e-4 is 1 in float16, where the spacing is 1e-3: four such updates must add up before
    anything is rounded."""
    folder = world[0] / "ckpts"
    encoder, *_ = load_text_encoder(folder / "Base_Model/stable-diffusion-v1-5")
    encoder.half()
    before = {name: t.clone() for name, t in encoder.state_dict().items()}
    merge_text_adapter(encoder, folder / "Magic_Weights/magic_text_encoder")
    for name, (down, up) in world[1].adapters["text"].items():
        found = encoder.get_submodule(name).weight
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found,
            before[f"{name}.weight"].float() + 2 * half(up) @ half(down),
            rtol=1e-5,
            atol=1e-6,
        )


# ---- the forms in which the same updates come


@pytest.mark.parametrize("form", ["state_dict", "module.", "float32", "safetensors"])
def test_adapter_s_forms(world, model, tmp_path, form):
    tensors = read(world[0] / "ckpts" / CKPTS["s"])
    path = tmp_path / ("s.safetensors" if form == "safetensors" else "s.ckpt")
    write(
        {
            "state_dict": {"state_dict": tensors, "global_step": 3},
            "module.": {"epoch": 1, "state_dict": {f"module.{n}": t for n, t in tensors.items()}},
            "float32": {n: t.float() for n, t in tensors.items()},
        }.get(form, tensors),
        path,
    )
    assert_same(magictime_world.load(world[0], magic_adapter_s_path=path).unet, model.unet)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace(".default", ""),
        lambda name: name.replace(".default", ".my-adapter_2"),
        lambda name: f"base_model.model.{name}",
        lambda name: f"base_model.model.{name}".replace(".default", ""),
        lambda name: f"module.{name}",
        lambda name: name.replace(".lora_", ".loramodule_default.lora_").replace(
            ".default.weight", ".weight"
        ),
    ],
    ids=[
        "no adapter name",
        "another adapter name",
        "peft prefix",
        "peft's own",
        "module.",
        "old swift names",
    ],
)
def test_peft_key_forms(copy, model, rename):  # noqa: F811
    for key in ("t", "text_adapter"):
        path = copy / "ckpts" / CKPTS[key]
        write({rename(name): t for name, t in read(path).items()}, path)
    loaded = magictime_world.load(copy)
    assert_same(loaded.unet, model.unet)
    assert_same(loaded.text_encoder, model.text_encoder)


def test_text_adapter_in_todays_names(copy, model):  # noqa: F811
    path = copy / "ckpts" / CKPTS["text_adapter"]
    write({name.removeprefix("text_model."): t for name, t in read(path).items()}, path)
    assert_same(magictime_world.load(copy).text_encoder, model.text_encoder)


@pytest.mark.parametrize("place", [".", "my_adapter"])
def test_peft_folder_forms(copy, model, place):  # noqa: F811
    """safetensors instead of .bin; in the folder itself, or in one of another name."""
    for key in ("t", "text_adapter"):
        path = copy / "ckpts" / CKPTS[key]
        home = path.parent.parent / place
        home.mkdir(exist_ok=True)
        save_file(read(path), home / "adapter_model.safetensors")
        shutil.move(path.parent / "adapter_config.json", home / "adapter_config.json")
        shutil.rmtree(path.parent)
    loaded = magictime_world.load(copy)
    assert_same(loaded.unet, model.unet)
    assert_same(loaded.text_encoder, model.text_encoder)


TARGETS_T = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "net.2"]


@pytest.mark.parametrize(
    "text, temporal",
    [
        (r".*self_attn\.(q|k|v|out)_proj", TARGETS_T),
        (None, None),
        ("all-linear", "all-linear"),
        (r"text_model\.encoder\.layers\.[01]\.self_attn\.\w+", r".*temporal_transformer\..*"),
    ],
)
def test_target_modules_as_list_and_regex(copy, model, text, temporal):  # noqa: F811
    """A list for T also names layers of the 2D UNet; no adapter T has them."""
    change_config(copy / "ckpts" / CONFIG_TEXT, target_modules=text)
    change_config(copy / "ckpts" / CONFIG_T, target_modules=temporal)
    loaded = magictime_world.load(copy)
    assert_same(loaded.unet, model.unet)
    assert_same(loaded.text_encoder, model.text_encoder)


@pytest.mark.parametrize(
    "change, scales",
    [
        ({"lora_alpha": 6}, (3, 3)),
        ({"lora_alpha": 3, "use_rslora": True}, (3 / math.sqrt(2), 3 / math.sqrt(2))),
        ({"alpha_pattern": {"q_proj": 10}}, (5, 2)),
        (
            {
                "r": 8,
                "rank_pattern": {
                    "self_attn.q_proj": 2,
                    "layers.[01].self_attn.(k_proj|v_proj|out_proj)": 2,
                },
            },
            (2, 2),
        ),
    ],
    ids=["alpha", "rslora", "alpha_pattern", "rank_pattern"],
)
def test_peft_scales(copy, world, bare, change, scales):  # noqa: F811
    change_config(copy / "ckpts" / CONFIG_TEXT, **change)
    new = magictime_world.load(copy).text_encoder.state_dict()
    old = bare.text_encoder.state_dict()
    for layer, scale in zip(
        ("encoder.layers.1.self_attn.q_proj", "encoder.layers.1.self_attn.v_proj"), scales
    ):
        name = next(n for n in world[1].adapters["text"] if n.endswith(layer))
        down, up = world[1].adapters["text"][name]
        torch.testing.assert_close(
            new[f"{name}.weight"] - old[f"{name}.weight"],
            scale * half(up) @ half(down),
            rtol=1e-3,
            atol=1e-5,
        )


# ---- adapters that cannot be read as they were meant


@pytest.mark.parametrize(
    "change, said",
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"r": 0}, "r=0"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"r": True}, "r=True"),
        (None, "a mapping is needed"),
        ({"r": 4}, ".lora_A.default.weight' has rank 2, adapter_config.json says 4"),
        (
            {"rank_pattern": {"to_k": 8}},
            "to_k.lora_A.default.weight' has rank 2, adapter_config.json says 8",
        ),
        ({"rank_pattern": [1]}, "rank_pattern"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save=['conv_in']"),
        ({"bias": "all"}, "bias='all'"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"init_lora_weights": [1]}, "init_lora_weights=[1]"),
        ({"target_modules": "("}, "target_modules='('"),
        ({"target_modules": 3}, "target_modules=3"),
        ({"target_modules": ["to_q"]}, "which adapter_config.json's target_modules does not name"),
        (
            {"target_modules": r".*attention_blocks.*"},
            "which adapter_config.json's target_modules does not name",
        ),
    ],
)
def test_config_that_does_not_fit_the_weights(copy, bare, change, said):  # noqa: F811
    path = copy / "ckpts" / CONFIG_T
    path.write_text(json.dumps([1] if change is None else json.loads(path.read_text()) | change))
    assert_refused(lambda: merge_adapter_t(bare.unet, path.parent), path.parent, said)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"target_modules": r"((\w+\.?)+)+!"},
            "target_modules='((\\\\w+\\\\.?)+)+!': matching takes more than 1 s",
        ),
        ({"rank_pattern": {"to_q": 2, r"(.*)*(.*)*(.*)*(.*)*(.*)*!": 2}}, "rank_pattern"),
        ({"alpha_pattern": {".*" * 12 + "!": 2}}, "alpha_pattern"),
        ({"target_modules": "to_q|" * 500}, "a pattern of 2500 characters"),
        ({"target_modules": "(" * 990 + ")" * 990}, "target_modules"),
        ({"target_modules": "a{99999999999}"}, "not a regular expression"),
    ],
)
def test_patterns_that_would_never_end(copy, bare, monkeypatch, change, said):  # noqa: F811
    monkeypatch.setattr(patterns, "SECONDS", 1)
    change_config(copy / "ckpts" / CONFIG_T, **change)
    folder = (copy / "ckpts" / CONFIG_T).parent
    assert_refused(
        lambda: merge_adapter_t(bare.unet, folder), f"{folder}/adapter_config.json", said
    )


@pytest.mark.parametrize("key, config", [("t", CONFIG_T), ("text_adapter", CONFIG_TEXT)])
def test_layer_without_its_update(copy, key, config):  # noqa: F811
    """A file cut short: target_modules names more layers than it holds."""
    path = copy / "ckpts" / CKPTS[key]
    tensors = read(path)
    layer = next(iter(tensors)).partition(".lora_")[0]
    write({name: t for name, t in tensors.items() if not name.startswith(f"{layer}.")}, path)
    assert_refused(lambda: magictime_world.load(copy), path, f"no update of '{layer}'")
    change_config(
        copy / "ckpts" / config, layers_to_transform=[0]
    )  # then not all that it names is adapted
    assert magictime_world.load(copy)


@pytest.mark.parametrize(
    "key, change, said",
    [
        ("t", lambda name: name.replace(".default", ".second"), "two updates of one layer"),
        ("t", lambda name: f"base_model.model.{name}", "two updates of one layer"),
        (
            "text_adapter",
            lambda name: name.removeprefix("text_model."),
            "two updates under two names",
        ),
        ("t", lambda name: name.replace(".lora_", ".modules_to_save."), "is not of the form"),
        (
            "t",
            lambda name: name.replace("lora_A.default.weight", "lora_magnitude_vector"),
            "is not of the form",
        ),
        ("text_adapter", lambda name: name.replace("self_attn", "cross_attn"), "has no place"),
        ("s", lambda name: f"more.{name}", "has no place"),
        ("s", lambda name: name.replace("_lora.", "_lora_2."), "is not of the form"),
    ],
)
def test_key_without_a_home(copy, key, change, said):  # noqa: F811
    path = copy / "ckpts" / CKPTS[key]
    tensors = read(path)
    write(tensors | {change(name): t for name, t in list(tensors.items())[:2]}, path)
    assert_refused(lambda: magictime_world.load(copy), path, said)


def test_one_of_several_adapters_is_not_picked(copy):  # noqa: F811
    folder = (copy / "ckpts" / CONFIG_T).parent
    for name in ("first", "second"):
        shutil.copytree(folder, folder.parent / name)
    assert magictime_world.load(copy)  # `default` wins
    shutil.rmtree(folder)
    assert_refused(
        lambda: magictime_world.load(copy), folder.parent, "several adapters here (first, second)"
    )


def test_a_bad_file_changes_nothing(copy, world, bare):  # noqa: F811
    path = copy / "ckpts" / CKPTS["s"]
    tensors = read(path)
    last = list(tensors)[-1]
    write(tensors | {last: tensors[last][:1]}, path)
    before = {name: t.clone() for name, t in bare.unet.state_dict().items()}
    with pytest.raises(InputError):
        merge_adapter_s(bare.unet, path)
    for name, tensor in bare.unet.state_dict().items():
        assert torch.equal(tensor, before[name])
