"""Files of the tests' tiny world that a test may rewrite or damage, and what loaded weights are
compared with."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lvd.errors import InputError

BASE = "Base_Model/stable-diffusion-v1-5"
CKPTS = {
    "unet": f"{BASE}/unet/diffusion_pytorch_model.safetensors",
    "vae": f"{BASE}/vae/diffusion_pytorch_model.safetensors",
    "text": f"{BASE}/text_encoder/model.safetensors",
    "motion": "Base_Model/motion_module/motion_module.ckpt",
    "dreambooth": "DreamBooth/TinyWorld.safetensors",
    "s": "Magic_Weights/magic_adapter_s/magic_adapter_s.ckpt",
    "t": "Magic_Weights/magic_adapter_t/default/adapter_model.bin",
    "text_adapter": "Magic_Weights/magic_text_encoder/default/adapter_model.bin",
}
ADAPTERS = dict.fromkeys(
    ("magic_adapter_s_path", "magic_adapter_t_path", "magic_text_encoder_path"), ""
)


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


def assert_same(module, other):
    expected = other.state_dict()
    assert module.state_dict().keys() == expected.keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def assert_refused(load, path, said):
    """load() raises InputError: one line that names `path` and holds `said`."""
    with pytest.raises(InputError) as refused:
        load()
    assert (
        str(path) in str(refused.value)
        and said in str(refused.value)
        and "\n" not in str(refused.value)
    )
