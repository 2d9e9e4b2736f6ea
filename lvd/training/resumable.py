"""Training one network on the clips of all steps, mini-batch by mini-batch: what a kill leaves is
taken up to the bit."""

import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lvd.data.clip_cache import AllClips, statistics
from lvd.errors import InputError
from lvd.evaluation.figures import save_curve_figure
from lvd.training.augment import augment, draw_augmentation
from lvd.training.loop import decay
from lvd.training.recipes import NOT_IDENTITY
from lvd.utils.config import need_same_training
from lvd.utils.files import load_torch, save_csv, save_torch
from lvd.utils.processes import one_thread

CHECKPOINT_FORMAT = "lvd training state 1"
SAVE_EVERY = 60  # seconds between two checkpoints


class ResumableRun:
    """Sized iterable over the mini-batches still to come; iterating yields the loss of each and
    saves the result at the end.

    Mini-batches mix videos and steps: an epoch shows every training video at every step once.
    Order, augmentation and dropout of a mini-batch follow from the seed and its number alone, so a
    run that goes on from its last checkpoint ends with the weights of an unbroken one (on the same
    kind of machine). A finished result of the same identity is left alone (then the length is 0);
    InputError names what differs otherwise.

    A subclass sets `rows` (Rows), `train` (positions of the videos to learn from), `identity` (what
    the result follows from), calls `_resume`, and supplies `_network`, `_loss`, `_look` and
    `_result`.
    """

    curve_names = ()  # (CSV, figure)
    noun = result = checkpoint = None  # what messages call it; names of its files

    def __init__(self, source, settings, steps, save_dir, device="cpu", save_every=SAVE_EVERY):
        self.source, self.settings, self.steps, self.device = (
            source,
            settings,
            list(steps),
            torch.device(device),
        )
        self.save_dir, self.save_every, self.seed = Path(save_dir), save_every, settings["seed"]
        self.curve, self.done, self.losses, self._before = [], 0, [], 0.0
        self.about = None  # of the result, once there is one

    def _common_identity(self, eval_sha256):
        return {
            "settings": {k: v for k, v in self.settings.items() if k not in NOT_IDENTITY},
            "steps": self.steps,
            "representation": self.source.representation,
            "eval_sha256": eval_sha256,
            "dataset": self.source.made_by,
            "rows": {kind: self.rows.of(kind) for kind in ("unsafe", "normal")},
        }

    def _resume(self, load_result):
        """Look at what is there: load_result(path) → dict with `about`."""
        self.per_epoch = -(-len(self.train) * len(self.steps) // self.settings["batch_size"])
        self.total = self.settings["epoch"] * self.per_epoch
        path = self.save_dir / self.result
        self.finished, self._state = path.exists(), None
        if self.finished:
            self.about = load_result(path)["about"]
            self._need_same(self.about, path)
            self.curve, self.done = self.about["curve"], self.total
        elif (self.save_dir / self.checkpoint).exists():
            self._state = self._load_state(self.save_dir / self.checkpoint)
            self.done = self._state["done"]

    def __len__(self):
        return self.total - self.done

    def __iter__(self):
        if self.finished:
            self._drop_state()  # of a run that was killed at its very end
            return
        with one_thread(self.settings["size"] != "base"):
            yield from self._train()

    def _train(self):
        self._begin()
        saved = time.monotonic()
        while self.done < self.total:
            epoch, first = divmod(self.done, self.per_epoch)
            for videos, at, clips in self.clips.batches(self._order(epoch)[first:]):
                loss = self._learn(videos, at, clips)
                if self.done % self.per_epoch == 0:
                    self._end_epoch()
                yield loss
                if time.monotonic() - saved > self.save_every:
                    self._save_state()
                    saved = time.monotonic()
        self._finish()

    def _begin(self):
        """Read the clips, build the network and take up the checkpoint's state, if there is one."""
        settings, self._began = self.settings, time.monotonic()
        shape = self.source.clip_shape(*self.rows.videos[0], self.steps[0])
        self.net = self._network(shape)
        self.clips = AllClips(self.source, self.rows.videos, self.steps, self.net.config)
        self.mean, self.std = (torch.empty(len(self.steps), shape[0]) for _ in range(2))
        for at, clips in self.clips.scan():
            self.mean[at], self.std[at] = statistics(clips[self.train])
        self.net.to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(),
            lr=settings["lr"],
            weight_decay=settings["weight_decay"],
            fused=True,
        )
        self.averaged = (
            torch.optim.swa_utils.AveragedModel(self.net) if settings["average"] else None
        )
        if self._state:
            self._take_up(self._state)
            self._state = None

    def _take_up(self, state):
        if state["data_sha256"] != self.clips.sha256:
            raise InputError(
                f"{self.save_dir / self.checkpoint}: the clips have changed since; delete it"
            )
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged:
            self.averaged.load_state_dict(state["averaged"])
        self.curve, self.losses, self._before = state["curve"], state["losses"], state["seconds"]

    @property
    def written(self):
        """Paths of the result and the curve, those that are there."""
        return [
            path
            for name in (self.result, *self.curve_names)
            if (path := self.save_dir / name).exists()
        ]

    @property
    def final(self):
        """The last epoch's point of the curve."""
        return self.curve[-1]

    def seconds(self):
        """Of training, those before a kill included."""
        return round(self._before + time.monotonic() - self._began, 2)

    def _order(self, epoch):
        """The epoch's mini-batches: (positions of videos, positions of steps), each [B]."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, 0, epoch))
        order = torch.randperm(len(self.train) * len(self.steps), generator=generator)
        return [
            (self.train[part // len(self.steps)], part % len(self.steps))
            for part in order.split(self.settings["batch_size"])
        ]

    def _learn(self, videos, at, clips):
        settings, batch = self.settings, self.done
        generator = torch.Generator().manual_seed(seed_of(self.seed, 1, batch))
        torch.manual_seed(seed_of(self.seed, 2, batch))  # dropout's
        for group in self.optimizer.param_groups:
            group["lr"] = settings["lr"] * decay(batch, self.total, settings["warmup"] * self.total)
        self.net.train()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=settings["precision"] == "bf16"
        ):
            loss = self._loss(videos, at.to(self.device), clips.to(self.device), generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.done += 1
        if self.averaged and self.done > self.total * (1 - settings["average"]):
            self.averaged.update_parameters(self.net)
        self.losses.append(loss.item())
        return self.losses[-1]

    def _augmented(self, inputs, generator):
        return augment(
            inputs, *draw_augmentation(inputs.shape, self.settings, generator), self.settings
        )

    def _end_epoch(self):
        loss = float(np.mean(self.losses))
        if not np.isfinite(loss):
            raise InputError(
                f"{self.noun}: training diverged (loss {loss}); a smaller --lr is needed"
            )
        self.losses = []
        with self._average():
            found = self._look()
        self.curve.append(
            {"epoch": self.done // self.per_epoch, "train_loss": round(loss, 6), **found}
        )

    @contextmanager
    def _average(self):
        """The averaged weights, once there are any, in place of the last ones."""
        if not (self.averaged and self.averaged.n_averaged):
            yield
            return
        last = {key: value.clone() for key, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.averaged.module.state_dict())
        yield
        self.net.load_state_dict(last)

    def _finish(self):
        if self.averaged:
            self.net.load_state_dict(self.averaged.module.state_dict())
        self.net.eval()
        save_csv(self.curve, self.save_dir / self.curve_names[0])
        save_curve_figure(self.curve, self.save_dir / self.curve_names[1], self.noun)
        self._result()  # what says that all is done: after the rest
        self.finished = True
        self._drop_state()

    def _drop_state(self):
        (self.save_dir / self.checkpoint).unlink(missing_ok=True)

    def _load_state(self, path):
        found = load_torch(path)
        if not isinstance(found, dict) or found.get("format") != CHECKPOINT_FORMAT:
            raise InputError(f"{path}: not the training state of a {self.noun}; delete it")
        self._need_same(found["identity"], path)
        return found

    def _need_same(self, before, path):
        need_same_training(path, before, self.identity)

    def _save_state(self):
        save_torch(
            {
                "format": CHECKPOINT_FORMAT,
                "identity": self.identity,
                "done": self.done,
                "curve": self.curve,
                "losses": self.losses,
                "seconds": self.seconds(),
                "data_sha256": self.clips.sha256,
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "averaged": self.averaged.state_dict() if self.averaged else None,
            },
            self.save_dir / self.checkpoint,
        )


def seed_of(*numbers):
    """A seed of its own for every (seed, purpose, number)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
