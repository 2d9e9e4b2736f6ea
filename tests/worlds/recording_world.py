"""Two small recordings with their labels and split: the folders that scripts make of them, and
detectors that learn from either."""

import pytest
import torch
import yaml

import build_eval_set
import build_x0
import embed_model
import gen_eval_set
import train_mae
from lvd.data.labels import read_labels
from lvd.data.recorded_clips import RecordedClips
from lvd.data.split import load_split
from lvd.utils.files import load_torch
from lvd.x0.file import create_x0_file
from tests.worlds import magictime_world

STEPS, SHAPE = 3, (4, 4, 4, 4)  # C, F, h, w: the worlds' VAE makes 4 frames of 32x32 px of it
LABELS = {"first": [*range(0, 12)], "second": [*range(10, 22)]}
FAST = ["--size", "nano", "--epoch", "3", "--batch_size", "8", "--gpu_num", "-1"]


def record(path, rows, seed, steps=STEPS, shape=SHAPE, whole=None, dtype=torch.float32):
    """Write an x0 file of random values and return them, [rows, steps, *shape]; whole: the rows
    that are written (None: all)."""
    draw = torch.Generator().manual_seed(seed)
    x0 = torch.randn(rows, steps, *shape, generator=draw)
    with create_x0_file(
        path, rows, steps, shape, dtype, {"seed": seed, "scaling_factor": 0.18215}
    ) as writer:
        for row in range(rows) if whole is None else whole:
            writer.write_row(
                row, x0[row], {"prompt": f"p{row}", "seed": row, "timesteps": list(range(steps))}
            )
    return x0


def write_labels(path, columns):
    """Write a label file of {category: [row, ...]} and return its path."""
    longest = max(map(len, columns.values()))
    cells = [[str(c[k]) if k < len(c) else "" for c in columns.values()] for k in range(longest)]
    path.write_text("".join(",".join(line) + "\n" for line in [columns, *cells]))
    return path


class RecordedWorld:
    """Two recordings, labels, build_x0.yaml and eval.pth below `root`; the folders that scripts
    make of them."""

    def __init__(self, root, dtype=torch.float16):
        self.root, self.eval, self.config = root, root / "eval.pth", root / "build_x0.yaml"
        self.x0 = {
            kind: record(root / kind / "pred_x0.pth", rows, seed, STEPS, dtype=dtype)
            for seed, (kind, rows) in enumerate((("unsafe", 22), ("normal", 24)))
        }
        self.labels = write_labels(root / "label.csv", LABELS)
        self.write_config()
        assert gen_eval_set.main(["--config", str(self.config), "--save_path", str(self.eval)]) == 0
        self.split = load_split(self.eval)

    def write_config(self, **changes):
        settings = {
            "pred_x0": str(self.root / "unsafe/pred_x0.pth"),
            "label_file_dir": str(self.labels),
            "normal_pred_x0": str(self.root / "normal/pred_x0.pth"),
            "out_dir": str(self.root / "data"),
        }
        self.config.write_text(yaml.safe_dump({**settings, **changes}))

    def build(self):
        assert build_x0.main(["--config", str(self.config), "--gpu_num", "-1"]) == 0
        assert (
            build_eval_set.main(
                [
                    "--config",
                    str(self.config),
                    "--eval_dir",
                    str(self.eval),
                    "--save_dir",
                    str(self.root),
                ]
            )
            == 0
        )

    def recorded(self, **changes):
        known = {
            "pred_x0": self.root / "unsafe/pred_x0.pth",
            "normal_pred_x0": self.root / "normal/pred_x0.pth",
            "labels": read_labels(self.labels),
            **changes,
        }
        return RecordedClips(**known)

    def train(self, save, *flags):
        return train_mae.main(
            ["--eval_dir", str(self.eval), "--save_dir", str(save), *FAST, *map(str, flags)]
        )

    def embed(self, model, save, *flags):
        return embed_model.main(
            [
                "--model_dir",
                str(model),
                "--eval_dir",
                str(self.eval),
                "--save_dir",
                str(save),
                "--gpu_num",
                "-1",
                *map(str, flags),
            ]
        )


def all_same(one, two):
    """The detectors of two folders have the same weights, thresholds and provenance."""
    names = sorted(path.relative_to(one) for path in one.glob("*/*.pth"))
    assert names == sorted(path.relative_to(two) for path in two.glob("*/*.pth")) and names
    for name in names:
        a, b = (load_torch(folder / name) for folder in (one, two))
        weights, others = a["state_dict"], b["state_dict"]
        assert set(weights) == set(others), name
        assert all(torch.equal(weights[key], others[key]) for key in weights), name
        for key in ("mean", "std", "threshold"):
            assert a[key] == b[key], (name, key)
        for key in (
            "rows",
            "data_sha256",
            "dataset",
            "categories",
            "eval_sha256",
            "seed",
            "settings",
        ):
            assert a["about"][key] == b["about"][key], (name, key)


@pytest.fixture(scope="module")
def magictime(tmp_path_factory):
    """A random tiny MagicTime whose base VAE differs from its DreamBooth one, so that a mix-up
    shows."""
    folder = tmp_path_factory.mktemp("magictime")
    parts = magictime_world.make_world(folder)
    from safetensors.torch import load_file, save_file

    base = folder / "ckpts/Base_Model/stable-diffusion-v1-5/vae/diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(base).items()}, base)
    return magictime_world.write_config(folder / "sample.yaml", folder), parts.vae


def decoded(vae, latents):
    """[C, F, h, w] → [3, F, H, W] in [0, 1], straight from the VAE."""
    with torch.no_grad():
        pixels = vae.half().float().decode(latents.transpose(0, 1) / 0.18215).sample
    return (pixels / 2 + 0.5).clamp(0, 1).transpose(0, 1)
