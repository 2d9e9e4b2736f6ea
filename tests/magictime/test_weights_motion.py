"""Every form of the motion module loads to the same weights; what the file is and what the YAML
says must agree."""

import json
import zipfile

import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import save_file

from MagicTime.utils.weights.load import load_magictime
from MagicTime.utils.weights.motion_unet import make_motion_unet
from tests.worlds import magictime_world
from tests.worlds.magictime_world import ONLY_BASE
from tests.worlds.weight_files import (  # noqa: F401
    ADAPTERS,
    CKPTS,
    assert_refused,
    assert_same,
    assert_state,
    copy,
    is_motion,
    read,
)

TABLES = "pos_encoder.pe"


FIRST_NORM = "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"


@pytest.fixture(scope="session")
def plain(world):
    """Base, motion module and DreamBooth."""
    return magictime_world.load(world[0], **ADAPTERS)


def load(folder, path, **options):
    """The world in `folder` with another motion file and, maybe, what a YAML says of it."""
    block = {**magictime_world.model_block(folder), **ADAPTERS, "motion_module": path}
    return load_magictime(
        {key: block[key] for key in ("pretrained_model_path", *ONLY_BASE)}, None, **options
    )


def zip_again(path):
    """The same archive, compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def without_tables(tensors):
    return {name: t for name, t in tensors.items() if not name.endswith(TABLES)}


FORMS = {
    "bare": lambda t, path: torch.save(t, path),
    "float32": lambda t, path: torch.save({n: x.float() for n, x in t.items()}, path),
    "parameters": lambda t, path: torch.save(
        {n: torch.nn.Parameter(x) for n, x in t.items()}, path
    ),
    "without tables": lambda t, path: torch.save(without_tables(t), path),
    "nested": lambda t, path: torch.save({"state_dict": t}, path),
    "trainer": lambda t, path: torch.save(
        {
            "epoch": 3,
            "global_step": torch.tensor(8),
            "state_dict": {f"module.{n}": x for n, x in t.items()},
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        },
        path,
    ),
    "prefixed": lambda t, path: torch.save({f"module.{n}": x for n, x in t.items()}, path),
    "old torch": lambda t, path: torch.save(t, path, _use_new_zipfile_serialization=False),
    "zipped again": lambda t, path: (torch.save(t, path), zip_again(path)),
    "safetensors": lambda t, path: save_file(
        {n: x.contiguous().clone() for n, x in t.items()}, path
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_form(world, tmp_path, plain, form):
    path = tmp_path / ("motion.safetensors" if form == "safetensors" else "motion.ckpt")
    FORMS[form](read(world[0] / "ckpts" / CKPTS["motion"]), path)
    loaded = load(world[0], path)
    assert_same(loaded.unet, plain.unet)
    tables = (
        ""
        if form == "without tables"
        else "; 18 left out (18 position tables, equal to the computed ones)"
    )
    assert loaded.report["motion_module"] == f"234 motion tensors{tables}"


def test_bfloat16(world, tmp_path, plain):
    """The rounding of its tables is no other table."""
    tensors = {n: x.bfloat16() for n, x in read(world[0] / "ckpts" / CKPTS["motion"]).items()}
    torch.save(tensors, tmp_path / "motion.ckpt")
    loaded, expected = (
        load(world[0], tmp_path / "motion.ckpt").unet.state_dict(),
        plain.unet.state_dict(),
    )
    for name in filter(is_motion, expected):
        wanted = (
            expected[name] if name.endswith("pos_embed.pe") else expected[name].bfloat16().float()
        )
        assert torch.equal(loaded[name], wanted), name


def whole_unet(folder, parts):
    two_d = {
        f"module.{name}": t.detach() + 1
        for name, t in parts.clip.unet.state_dict().items()
        if not is_motion(name)
    }
    return {
        f"module.{name}": t for name, t in read(folder / "ckpts" / CKPTS["motion"]).items()
    } | two_d


def test_whole_unet(world, tmp_path, plain):
    """Its 2D weights are not used, as in MagicTime; the report says how many there were."""
    folder, parts = world
    torch.save({"state_dict": whole_unet(folder, parts)}, tmp_path / "unet.ckpt")
    loaded = load(folder, tmp_path / "unet.ckpt")
    assert_same(loaded.unet, plain.unet)
    assert "324 2D UNet" in loaded.report["motion_module"]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"module.conv_in.weight": torch.zeros(1)}, "'conv_in.weight' has shape (1,)"),
        ({"module.conv_inn.weight": torch.zeros(1)}, "key 'conv_inn.weight' has no place"),
        (
            {"module.down_blocks.0.motion_modules.0.pos_encoder.pe": torch.zeros(1, 32, 32)},
            "has no place",
        ),
        (
            {"module.down_blocks.0.motion_modules.0.pos_encoder.weight": torch.zeros(1)},
            "has no place",
        ),
        (
            {"module.down_blocks.0.motion_modules.0.norm.weight": torch.zeros(32)},
            "are two forms of one",
        ),
        ({f"module.{FIRST_NORM}": torch.zeros(32, dtype=torch.int8)}, "torch.int8"),
        ({"module.conv_in.weight": torch.zeros(32, 4, 3, 3, device="meta")}, "meta"),
    ],
)
def test_key_without_a_home(world, tmp_path, change, said):
    torch.save(whole_unet(*world) | change, tmp_path / "unet.ckpt")
    assert_refused(lambda: load(world[0], tmp_path / "unet.ckpt"), tmp_path / "unet.ckpt", said)


@pytest.mark.parametrize(
    "beside, said",
    [
        ({"ema": torch.zeros(3)}, "'ema' beside 'state_dict'"),
        ({"ema_state_dict": {"a": torch.zeros(3)}}, "'ema_state_dict' holds"),
    ],
)
def test_weights_beside_the_state_dict(world, tmp_path, beside, said):
    torch.save(
        {"state_dict": read(world[0] / "ckpts" / CKPTS["motion"]), **beside},
        tmp_path / "motion.ckpt",
    )
    assert_refused(lambda: load(world[0], tmp_path / "motion.ckpt"), tmp_path / "motion.ckpt", said)


# ---- AnimateDiff's versions


def write_version(folder, version, path):
    """A random motion file of version 1, 2 or 3. Returns the UNet that it was made from."""
    from MagicTime.prepare_weights.tiny.export import write_motion

    draw = torch.Generator().manual_seed(version)
    unet = magictime_world.shake(
        make_motion_unet(magictime_world.UNET, 8, 24 if version == 1 else 32, version == 2), draw
    )
    write_motion(path, unet)
    return unet


@pytest.mark.parametrize(
    "version, length, mid_block", [(1, 24, False), (2, 32, True), (3, 32, False)]
)
def test_version_is_seen_in_the_file(world, tmp_path, version, length, mid_block):
    expected = write_version(world[0], version, tmp_path / "motion.ckpt")
    for said in ({}, {"heads": 8, "max_length": length, "mid_block": mid_block}):
        unet = load(world[0], tmp_path / "motion.ckpt", **said).unet
        assert_state(unet, expected.state_dict(), is_motion)
        assert hasattr(unet.mid_block, "motion_modules") == mid_block
        assert unet.config.motion_max_seq_length == length
    assert (
        unet.down_blocks[0].motion_modules[0].transformer_blocks[0].pos_embed.pe.shape[1] == length
    )


@pytest.mark.parametrize(
    "version, said, key, value",
    [
        (1, {"max_length": 32}, "motion_module_kwargs: temporal_position_encoding_max_len", 24),
        (2, {"mid_block": False}, "motion_module_mid_block", "true"),
        (3, {"mid_block": True}, "motion_module_mid_block", "false"),
        (3, {"max_length": 24}, "motion_module_kwargs: temporal_position_encoding_max_len", 32),
    ],
)
def test_version_against_the_yaml(world, tmp_path, version, said, key, value):
    write_version(world[0], version, tmp_path / "motion.ckpt")
    assert_refused(
        lambda: load(world[0], tmp_path / "motion.ckpt", **said),
        tmp_path / "motion.ckpt",
        f"set unet_additional_kwargs: {key}: {value}",
    )


def test_without_tables_the_yaml_says_the_length(world, tmp_path):
    torch.save(without_tables(read(world[0] / "ckpts" / CKPTS["motion"])), tmp_path / "motion.ckpt")
    assert (
        load(world[0], tmp_path / "motion.ckpt", max_length=24).unet.config.motion_max_seq_length
        == 24
    )


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda table: table.flip(1), "position table"),
        (lambda table: table + float("nan"), "position table"),
        (lambda table: table[:, :24], "position tables of"),
        (lambda table: table[0], "has shape (32, 32)"),
    ],
)
def test_wrong_position_table(copy, change, said):
    path = copy / "ckpts" / CKPTS["motion"]
    tensors = read(path)
    name = next(n for n in tensors if n.endswith(TABLES))
    torch.save(tensors | {name: change(tensors[name]).clone()}, path)
    assert_refused(lambda: magictime_world.load(copy), path, said)


# ---- diffusers' MotionAdapter


@pytest.fixture
def adapter(world):
    """The world's motion module as diffusers' own class."""
    unet = world[1].clip.unet
    made = MotionAdapter(
        block_out_channels=magictime_world.UNET["block_out_channels"],
        motion_layers_per_block=1,
        motion_num_attention_heads=8,
        motion_max_seq_length=32,
        use_motion_mid_block=False,
    )
    made.load_state_dict({name: t for name, t in unet.state_dict().items() if is_motion(name)})
    return made.half()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"safe_serialization": False},
        {"variant": "fp16"},
        {"variant": "fp16", "safe_serialization": False},
        {"max_shard_size": "100KB"},
    ],
)
def test_motion_adapter_folder(world, tmp_path, plain, adapter, saved):
    adapter.save_pretrained(tmp_path, **saved)
    assert_same(load(world[0], tmp_path).unet, plain.unet)


def test_motion_adapter_file(world, tmp_path, plain, adapter):
    adapter.save_pretrained(tmp_path)
    assert_same(load(world[0], tmp_path / "diffusion_pytorch_model.safetensors").unet, plain.unet)


@pytest.mark.parametrize(
    "change, yaml, said",
    [
        (
            {"motion_num_attention_heads": 4},
            {"heads": 8},
            "motion_module_kwargs: num_attention_heads: 4",
        ),
        ({"motion_num_attention_heads": [8, 4, 8]}, {}, "motion_num_attention_heads=[8, 4, 8]"),
        ({"motion_norm_num_groups": 16}, {}, "motion_norm_num_groups=16"),
        ({"use_motion_mid_block": True}, {}, "use_motion_mid_block=True"),
        ({"motion_max_seq_length": 24}, {}, "motion_max_seq_length=24"),
    ],
)
def test_motion_adapter_config(world, tmp_path, adapter, change, yaml, said):
    adapter.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert_refused(lambda: load(world[0], tmp_path, **yaml), tmp_path, said)


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"block_out_channels": [320, 640, 1280]},
            "[320, 640, 1280] there, [32, 32, 64] here; Stable Diffusion XL?)",
        ),
        (
            {"block_out_channels": [32, 32]},
            "another UNet (block_out_channels [32, 32] there, [32, 32, 64] here)",
        ),
        ({"block_out_channels": "a"}, "another UNet (block_out_channels ['a', 'a', 'a'] there"),
        (
            {"motion_layers_per_block": 2},
            "another UNet (motion_layers_per_block [2, 2, 2] there, [1, 1, 1] here)",
        ),
        (
            {"motion_layers_per_block": [1, 1, 2]},
            "another UNet (motion_layers_per_block [1, 1, 2] there",
        ),
    ],
)
def test_motion_adapter_of_another_unet(world, tmp_path, adapter, change, said):
    adapter.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert_refused(lambda: load(world[0], tmp_path), path, said)
    known = {"block_out_channels": [32, 32, 64], "motion_layers_per_block": [1, 1, 1]}
    path.write_text(json.dumps(json.loads(path.read_text()) | known))
    assert load(world[0], tmp_path)


def test_motion_adapter_heads(world, tmp_path, adapter):
    adapter.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"motion_num_attention_heads": [4, 4, 4]})
    )
    unet = load(world[0], tmp_path).unet
    assert unet.down_blocks[0].motion_modules[0].transformer_blocks[0].attn1.heads == 4


def test_adapter_t_needs_a_motion_module(world):
    assert_refused(
        lambda: magictime_world.load(world[0], motion_module=""), "magic_adapter_t", "motion_module"
    )
