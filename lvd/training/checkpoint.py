"""The file that a long training writes from time to time, to go on from after a kill."""

import time
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lvd.detectors.weights import need_finite_weights
from lvd.errors import InputError
from lvd.utils.config import need_same_training
from lvd.utils.files import load_torch, save_torch
from lvd.utils.schema import (
    Count,
    Finite,
    Name,
    Positive,
    Probability,
    Schema,
    StateDict,
    checked,
    plain,
)

FORMAT = "lvd training state 1"
SAVE_EVERY = 60  # seconds between two checkpoints


class CurvePoint(Schema, extra="allow"):
    """A point of a training curve; pre-training measures no validation."""

    epoch: Positive
    train_loss: Finite
    val_loss: Finite | None = None
    val_auroc: Probability | None = None


class CheckpointFile(Schema):
    """The content of a checkpoint, see `Training.state` and ResumableRun."""

    format: str
    identity: Annotated[dict[str, Any], BeforeValidator(plain)]
    done: Count
    losses: list[Annotated[float, Field(allow_inf_nan=True)]]
    net: StateDict
    optimizer: dict[str, Any]
    averaged: StateDict | None
    curve: list[CurvePoint]
    seconds: Finite
    data_sha256: Name


class Checkpoint:
    """A checkpoint file of one training."""

    def __init__(self, path, noun, identity, save_every=SAVE_EVERY):
        """
        Args:
            path: of the file, which need not exist.
            noun: what messages call the result of the training.
            identity: {key: value} that the result follows from.
            save_every: seconds between two checkpoints.
        """
        self.path, self.noun, self.identity, self.save_every = path, noun, identity, save_every
        self._saved = time.monotonic()

    def load(self):
        """Return the saved state, None without a file; InputError for one of another training."""
        if not self.path.exists():
            return None
        state = load_torch(self.path)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise InputError(f"{self.path}: not the training state of a {self.noun}; delete it")
        checked(CheckpointFile, state, self.path)
        for key in ("net", "averaged"):
            need_finite_weights(state[key] or {}, self.path, key)
        need_same_training(self.path, state["identity"], self.identity)
        return state

    def save_if_due(self, state_of):
        """Write what `state_of()` returns if the last checkpoint is old enough."""
        if time.monotonic() - self._saved > self.save_every:
            save_torch({"format": FORMAT, "identity": self.identity, **state_of()}, self.path)
            self._saved = time.monotonic()

    def delete(self):
        self.path.unlink(missing_ok=True)
