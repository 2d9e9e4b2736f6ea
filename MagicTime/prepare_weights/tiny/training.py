"""One training loop for every stage: seeded by (seed, stage, step), averaged weights, resumable."""

import copy
import csv
import math
import time
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from lvd.utils.files import save_torch
from lvd.utils.progress import progress

SAVE_EVERY = 250  # steps between two checkpoints; a killed run repeats at most this many


def processes():
    """Return (rank, number of processes); under torchrun each draws its share of every batch."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def barrier():
    """Wait for the other processes, if there are any."""
    if dist.is_initialized():
        dist.barrier()


def step_rng(seed, stage, step):
    """Return the numpy Generator of one step, and seed torch.

    So a resumed run draws what an unbroken one would.
    """
    entropy = [seed, zlib.crc32(stage.encode()), step, processes()[0]]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
    return np.random.default_rng(entropy)


def train_stage(
    stage, out, model, steps, loss_of, lr, seed, warmup=100, ema=0.999, weight_decay=0.01
):
    """Train the parameters that require gradients; the model ends with their moving average.

    The state is in out/{stage}.pt, the loss curve in out/{stage}.csv. A finished stage is loaded
    and not run again.

    Args:
        stage: its name.
        out: folder of the stages.
        model: that is trained.
        steps: training steps.
        loss_of: function (step, rng) that returns the loss of one step.
        lr: highest learning rate.
        seed: of all that is drawn.
        warmup: steps until the learning rate is highest.
        ema: decay of the moving average.
        weight_decay: of AdamW.

    Returns:
        `model`, in evaluation mode.
    """
    out = Path(out)
    path = out / f"{stage}.pt"
    average = copy.deepcopy(model).eval().requires_grad_(False)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99))
    first = _load_stage(path, model, average, optimizer, steps)
    losses = []
    began = time.time()
    for step in progress(
        range(first, steps),
        stage,
        unit="step",
        total=steps,
        initial=first,
        disable=processes()[0] > 0,
    ):
        for group in optimizer.param_groups:
            group["lr"] = lr * _schedule(step, steps, warmup)
        loss = loss_of(step, step_rng(seed, stage, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _share_gradients(params)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        _average(average, model, min(ema, (step + 1) / (step + 10)))
        losses.append(loss.item())
        is_due = (step + 1) % SAVE_EVERY == 0 or step + 1 == steps
        if is_due and processes()[0] == 0:
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            save_torch(state, path)
            _add_to_curve(out / f"{stage}.csv", step + 1, losses, time.time() - began)
            losses = []
    model.load_state_dict(average.state_dict())
    return model.eval().requires_grad_(False)


def _load_stage(path, model, average, optimizer, steps):
    """Go on from the state of a stopped or finished stage; returns the steps that it has taken."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    average.load_state_dict(state["average"])
    if state["step"] < steps:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def _add_to_curve(path, step, losses, seconds):
    with open(path, "a", newline="") as file:
        csv.writer(file).writerow([step, f"{np.mean(losses):.5f}", f"{seconds:.0f}"])


def _share_gradients(params):
    """Average the gradients over processes: all take the same step."""
    if processes()[1] == 1:
        return
    grads = [p.grad for p in params if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= processes()[1]
    for g, shared in zip(grads, flat.split([g.numel() for g in grads])):
        g.copy_(shared.view_as(g))


def _schedule(step, steps, warmup):
    """Linear warmup, then a cosine down to 2%."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def _average(average, model, keep):
    for a, p in zip(average.parameters(), model.parameters()):
        a.lerp_(p, 1 - keep)
