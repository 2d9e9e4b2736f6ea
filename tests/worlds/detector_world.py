"""A small dataset of separable clips, in the layout of build_x0.py: what tests of the detectors
train on."""

import csv
import shutil
from types import SimpleNamespace

import torch

from lvd.data.clip_file import clip_path, link_clip, note_representation, write_clip
from lvd.data.clip_folders import BUILT
from lvd.data.split import Split, save_split
from lvd.detectors.detector import build_detector, save_detector
from lvd.utils.files import save_json, save_yaml, sha256

CATEGORIES = ("bright", "flicker")
STEPS = 3
UNSAFE = {1: list(range(0, 12)), 2: list(range(10, 22))}  # rows 10 and 11 are in both
HELD_UNSAFE, HELD_NORMAL = [1, 5, 11, 14, 20], [0, 3, 8, 13, 21]
NORMAL = 24
SHAPES = {"latent": (4, 4, 4, 4), "video": (3, 8, 32, 32)}


def make_clip(kind, row, groups, step):
    """Noise, with the pattern of each group in `groups`, stronger at later steps."""
    draw = torch.Generator().manual_seed(1000 * step + row + (500 if not groups else 0))
    clip = torch.randn(SHAPES[kind], generator=draw) * 0.5
    strength = 1 + 0.5 * step
    if 1 in groups:
        clip[0] += strength
    if 2 in groups:
        clip[1, ::2] += strength
        clip[1, 1::2] -= strength
    return clip if kind == "latent" else (0.5 + 0.15 * clip).clamp(0, 1)


def make_world(root, kind="latent"):
    """Write dataset, labels, eval.pth, eval_set, eval_normal below `root`; return their paths."""
    data = root / "train_detector_data"
    for step in range(STEPS):
        for row in range(22):
            groups = [g for g, rows in UNSAFE.items() if row in rows]
            clip = make_clip(kind, row, groups, step)
            for group in groups:
                write_clip(data / f"group{group}" / str(step) / str(row), clip, kind)
        for row in range(NORMAL):
            write_clip(data / "normal" / str(step) / str(row), make_clip(kind, row, [], step), kind)
    with open(root / "label.csv", "w", newline="") as f:
        csv.writer(f).writerows([CATEGORIES, *zip(*UNSAFE.values(), strict=True)])
    save_split(
        Split(HELD_UNSAFE, HELD_NORMAL, 2024, 0.2, sha256(root / "label.csv"), NORMAL),
        root / "eval.pth",
    )
    for step in range(STEPS):
        for row in HELD_UNSAFE:
            source = next(
                p
                for g in UNSAFE
                if (p := clip_path(data / f"group{g}" / str(step) / str(row), kind)).exists()
            )
            link_clip(source, root / "eval_set" / str(step) / source.name)
        for row in HELD_NORMAL:
            source = clip_path(data / "normal" / str(step) / str(row), kind)
            link_clip(source, root / "eval_normal" / str(step) / source.name)
    for folder in (data, root / "eval_set", root / "eval_normal"):
        note_representation(folder, kind)
    made_by = {"pred_x0_made_by": "recording", "normal_pred_x0_made_by": "normal recording"}
    save_yaml(
        {"categories": list(CATEGORIES), "representation": kind, **made_by}, data / "config.yaml"
    )
    for folder in ("eval_set", "eval_normal"):
        save_yaml(made_by, root / folder / "config.yaml")
    save_json(
        {"steps": list(range(STEPS)), "videos": {"group1": 12, "group2": 12, "normal": NORMAL}},
        data / BUILT,
    )
    return paths(root)


def make_detectors(folder, sizes=("nano", "nano"), eval_sha256="e" * 64, shape=SHAPES["latent"]):
    """Random detectors of two groups and three steps, with statistics, thresholds and names of
    their own."""
    for group, size in enumerate(sizes, 1):
        for step in range(STEPS):
            seed = 10 * group + step
            detector = build_detector(size, shape, "latent", seed)
            draw = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for weight in detector.model.parameters():
                    weight += 0.1 * torch.randn(weight.shape, generator=draw)
            detector.mean = torch.randn(shape[0], generator=draw).tolist()
            detector.std = (0.5 + torch.rand(shape[0], generator=draw)).tolist()
            detector.threshold = 0.5 + 0.01 * seed
            detector.about = {
                "group": group,
                "step": step,
                "category": CATEGORIES[group - 1],
                "categories": list(CATEGORIES),
                "eval_sha256": eval_sha256,
            }
            save_detector(detector, folder / str(group) / f"{step}.pth")
    return folder


def paths(root):
    return SimpleNamespace(
        root=root,
        data=root / "train_detector_data",
        eval=root / "eval.pth",
        save=root / "detectors",
        results=root / "results",
        labels=root / "label.csv",
    )


def copy_world(world, root):
    """A copy whose files are its own (no links shared with `world`)."""
    shutil.copytree(world.root, root)
    return paths(root)
