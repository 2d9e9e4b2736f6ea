"""What the files of detectors and of pre-trained encoders may hold, besides their weights."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from lvd.data.identity import Dataset
from lvd.utils.schema import (
    AsJson,
    Count,
    OneLine,
    Positive,
    Probability,
    Row,
    Schema,
    StateDict,
    Tensor,
)
from lvd.x0.levels import Level
from lvd.x0.provenance import Sampling

# Of a network. Far above what anybody trains, and low enough that a damaged number costs nothing.
Width = Annotated[int, Field(ge=1, le=1 << 16)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Pixels = Annotated[int, Field(ge=1, le=1 << 14)]
# The table of positions is computed number by number: 2**24 of them take half a minute.
POSITIONS = 1 << 24
HALF_MAX = 65504.0  # the largest number of float16, in which clips are stored

Number = Annotated[float, Field(allow_inf_nan=True)]  # in tables, where NaN means "not known"
Text = Annotated[str, Field(max_length=1000)]
Category = Annotated[OneLine, Field(min_length=1, max_length=1000)]
Mean = Annotated[float, Field(ge=-HALF_MAX, le=HALF_MAX, allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=1e-30, le=HALF_MAX, allow_inf_nan=False)]
Representation = Literal["latent", "rgb", "video"]


def _is_size(value):
    sides = value if isinstance(value, (list, tuple)) else [value]
    fits = len(sides) in (1, 2) and all(type(side) is int and 0 < side <= 1 << 14 for side in sides)
    if not fits:
        raise ValueError("one or two whole numbers from 1 to 16384 are needed")
    return value


def _is_activation(name):
    from transformers.activations import ACT2FN

    if not isinstance(name, str) or name not in ACT2FN:
        raise ValueError("the name of an activation function is needed")
    return name


class NetworkConfig(Schema):
    """The keys of VideoMAEConfig that a file keeps: lvd.detectors.videomae.CONFIG_KEYS."""

    image_size: Annotated[Any, AfterValidator(_is_size)]
    patch_size: Pixels
    num_channels: Width
    num_frames: Pixels
    tubelet_size: Pixels
    hidden_size: Width
    num_hidden_layers: Layers
    num_attention_heads: Width
    intermediate_size: Annotated[int, Field(ge=1, le=1 << 20)]
    hidden_act: Annotated[Any, AfterValidator(_is_activation)]
    layer_norm_eps: Probability
    qv_bias: bool
    use_mean_pooling: bool
    hidden_dropout_prob: Probability

    @model_validator(mode="after")
    def _fits_together(self):
        sides = self.image_size if isinstance(self.image_size, (list, tuple)) else [self.image_size]
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("a hidden_size that is a multiple of num_attention_heads is needed")
        if self.patch_size > min(sides) or self.tubelet_size > self.num_frames:
            raise ValueError("an image_size and num_frames of at least one patch are needed")
        patches = [side // self.patch_size for side in (sides[0], sides[-1])]
        tokens = math.prod(patches) * (self.num_frames // self.tubelet_size)
        if tokens * self.hidden_size > POSITIONS:
            raise ValueError(f"a smaller image_size or num_frames ({tokens} tokens) is needed")
        return self


class CalibrationEntry(Schema):
    """A Calibration (lvd.detectors.calibration) as a file keeps it."""

    a: Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
    b: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
    method: Text
    clips: dict[Text, Count]


# ---- provenance: what a file says about itself. A key may be missing, but not None unless its type
# says so; keys that are not named here may hold any plain values.


class About(Schema, extra="allow"):
    """Provenance that all kinds of files have in common."""

    category: Category = None
    categories: Annotated[list[Category], Field(max_length=10_000)] | None = None
    dataset: Dataset = None
    sampling: Sampling | None = None
    eval_sha256: Text | None = None
    rows: dict[Text, list[Row]] = None
    settings: dict = None


class Curve(Schema):
    """The validation curve of a detector of the grid: lists of one length."""

    epoch: list[Count]
    train_loss: list[Number | None]
    val_loss: list[Number | None]
    val_auroc: list[Number | None]

    @model_validator(mode="after")
    def _is_table(self):
        if len(set(map(len, vars(self).values()))) > 1:
            raise ValueError("a curve of lists of one length is needed")
        return self


class GridAbout(About):
    """Provenance of a detector of one category and step."""

    group: Positive = None
    step: Count = None
    metrics: dict = None
    curve: Curve | None = None

    @model_validator(mode="after")
    def _has_place(self):
        if self.metrics is not None and None in (self.group, self.step, self.category):
            raise ValueError("beside metrics, also group, step and category are needed")
        if self.settings is not None and self.metrics is None:
            raise ValueError("beside settings, also metrics are needed")
        return self


class OneNetworkAbout(About):
    """Provenance of a network that is trained on all steps."""

    steps: list[Count] = None
    curve: list[dict[Text, Number | None]] = None

    @model_validator(mode="after")
    def _has_curve(self):
        if self.settings is not None and self.curve is None:
            raise ValueError("beside settings, also a curve is needed")
        return self


class SharedAbout(OneNetworkAbout):
    """Provenance of a shared detector."""

    metrics: list[dict] = None

    @model_validator(mode="after")
    def _has_metrics(self):
        if self.settings is not None and self.metrics is None:
            raise ValueError("beside settings, also metrics are needed")
        return self


class NamesAbout(OneNetworkAbout):
    """Provenance of a network that tells categories from each other."""

    naming: dict[Text, Number] = None


class PretrainedAbout(OneNetworkAbout):
    """Provenance of a pre-trained encoder, which says what it has seen."""

    eval_sha256: Text
    rows: dict[Literal["unsafe", "normal"], list[Row]]

    @model_validator(mode="after")
    def _has_both_kinds(self):
        if len(self.rows) < 2:
            raise ValueError("rows of unsafe and of normal are needed")
        return self


# ---- whole files


class GridFile(Schema):
    """{group}/{step}.pth: the detector of one category at one step."""

    format: Text
    state_dict: StateDict
    config: NetworkConfig
    representation: Representation
    mean: list[Mean]
    std: list[Deviation]
    threshold: Any  # `check_threshold` has the words for it
    about: Annotated[GridAbout, AsJson]
    calibration: CalibrationEntry | None = None

    @model_validator(mode="after")
    def _has_all_channels(self):
        channels = self.config.num_channels
        for key in ("mean", "std"):
            if len(getattr(self, key)) != channels:
                raise ValueError(f"{key} of {channels} numbers, one for each channel, is needed")
        return self


class StepsFile(Schema):
    """What files of one network for all categories and steps have in common."""

    format: Text
    state_dict: StateDict
    config: NetworkConfig
    representation: Representation
    steps: Annotated[list[Count], Field(min_length=1, max_length=100_000)]
    categories: Annotated[list[Category], Field(min_length=1, max_length=10_000)]
    mean: Tensor
    std: Tensor

    @model_validator(mode="after")
    def _fits_together(self):
        if any(after <= before for before, after in zip(self.steps, self.steps[1:])):
            raise ValueError("steps in rising order are needed")
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("categories of different names are needed")
        for key in ("mean", "std"):
            self._need_statistics(key, getattr(self, key))
        return self

    def _need_statistics(self, key, tensor):
        shape = [len(self.steps), self.config.num_channels]
        if list(tensor.shape) != shape or not tensor.is_floating_point():
            raise ValueError(f"{key} of shape {shape} (steps, channels) and floats is needed")
        numbers = tensor.flatten().tolist()
        lowest = -HALF_MAX if key == "mean" else 1e-30
        if not all(lowest <= number <= HALF_MAX for number in numbers):
            least = f"{lowest:g}" if key == "mean" else "above 0"
            raise ValueError(f"{key} of finite numbers, {least} to {HALF_MAX:g}, is needed")


class SharedFile(StepsFile):
    """shared.pth: one detector for all categories and steps."""

    thresholds: list[list[Any]]  # `check_threshold` has the words for them
    calibrations: list[list[CalibrationEntry | None]]
    about: Annotated[SharedAbout, AsJson]
    levels: list[Level] = None

    @model_validator(mode="after")
    def _has_all_levels(self):
        if self.levels is not None and len(self.levels) != len(self.steps):
            raise ValueError(f"levels of {len(self.steps)} numbers, one for each step, is needed")
        return self


class NamesFile(StepsFile):
    """names.pth: a network that tells categories from each other."""

    about: Annotated[NamesAbout, AsJson]


class PretrainedFile(Schema):
    """pretrained.pth: an encoder that training may start from."""

    format: Text
    state_dict: StateDict
    config: NetworkConfig
    representation: Representation
    about: Annotated[PretrainedAbout, AsJson]
