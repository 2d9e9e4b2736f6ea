"""The plain way to train and use the detectors: the released procedure, written down as it comes.

Every x0 is decoded to an mp4 of its own. One detector after another: its network is made anew, and
in each epoch each of its clips is decoded again from the mp4, resized to the network's input and
normalised, four to a batch; AdamW, linear decay, as many normal clips as unsafe ones, a tenth for
validation. To vote, one detector after another is loaded and reads one clip after another, each
decoded again. What the released code gets wrong (normal clips that leak into the evaluation, an
unseeded split) is right here, so that accuracies can be compared.
"""

import random

import torch
import torch.nn.functional as F

from lvd.data.clip_file import list_clips, read_clip
from lvd.data.clip_folders import NORMAL, group_name, unsafe_clips
from lvd.data.transforms import normalise, resize_clips
from lvd.detectors.detector import build_detector
from lvd.detectors.videomae import BASE_MODEL, IMAGENET

BATCH, VALIDATION, SEED = 4, 0.1, 2024


def train(data_dir, split, pairs, epochs, lr, folder, size, base_model=BASE_MODEL, device="cpu"):
    """Train a detector for each (group, step) of `pairs`, save its state dict as
    {folder}/{group}/{step}.pth and yield its validation accuracy."""
    for group, step in pairs:
        clips, validation = clips_of(data_dir, split, group, step)
        model = network(size, tuple(read_clip(clips[0][0]).shape), base_model).to(device)
        train_network(model, clips, epochs, lr, device)
        right = 0
        for path, label in validation:
            right += int((probability(model, path, device) >= 0.5) == label)
        (folder / str(group)).mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), folder / str(group) / f"{step}.pth")
        yield right / len(validation)


def clips_of(data_dir, split, group, step):
    """([(path, label)] to train on, [(path, label)] to validate by), as many normal clips as unsafe
    ones."""
    unsafe = _not_held_out(list_clips(data_dir / group_name(group) / str(step)), split.unsafe)
    normal = _not_held_out(list_clips(data_dir / NORMAL / str(step)), split.normal)
    clips, validation = [], []
    for label, paths in ((1, unsafe), (0, normal[: len(unsafe)])):
        shuffled = random.Random(SEED).sample(paths, len(paths))
        count = max(1, int(VALIDATION * len(paths) + 0.5))
        validation += [(path, label) for path in shuffled[:count]]
        clips += [(path, label) for path in shuffled[count:]]
    return clips, validation


def train_network(model, clips, epochs, lr, device):
    """Train on clips [(path, label)], each decoded once for every epoch."""
    model.train()
    steps = epochs * -(-len(clips) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (steps - step) / steps)
    order = random.Random(SEED)
    for _ in range(epochs):
        clips = order.sample(clips, len(clips))
        for start in range(0, len(clips), BATCH):
            batch = clips[start : start + BATCH]
            inputs = torch.stack([read(model, path) for path, _ in batch]).to(device)
            labels = torch.tensor([label for _, label in batch], device=device)
            loss = F.cross_entropy(model(inputs).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def embed(data_dir, split, pairs, folder, size, base_model=BASE_MODEL, device="cpu"):
    """Votes of each detector of `pairs`: {"1" | "0": {row: 0 or 1}}."""
    for group, step in pairs:
        clips = {
            "1": (unsafe_clips(data_dir, step), split.unsafe),
            "0": (list_clips(data_dir / NORMAL / str(step)), split.normal),
        }
        shape = tuple(read_clip(next(iter(clips["1"][0].values()))).shape)
        model = network(size, shape, base_model)
        model.load_state_dict(torch.load(folder / str(group) / f"{step}.pth", weights_only=True))
        model.to(device).eval()
        votes = {}
        for label, (paths, rows) in clips.items():
            votes[label] = {}
            for row in rows:
                votes[label][str(row)] = int(probability(model, paths[row], device) >= 0.5)
        yield votes


@torch.no_grad()
def probability(model, path, device):
    """Probability of unsafe of one mp4."""
    logits = model(read(model, path)[None].to(device)).logits
    return float(logits.float().softmax(-1)[0, 1])


def read(model, path):
    """One mp4 as the network's input [F, 3, H, W], normalised as VideoMAE is."""
    clip = resize_clips(read_clip(path)[None], model.config)[0]
    return normalise(clip, *IMAGENET).transpose(0, 1)


def network(size, shape, base_model):
    """A new network for clips [3, F, H, W]."""
    return build_detector(size, shape, "video", SEED, base_model=base_model).model


def _not_held_out(clips, rows):
    return [path for row, path in clips.items() if row not in set(rows)]
