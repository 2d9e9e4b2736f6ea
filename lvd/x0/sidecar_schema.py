"""Schemas of what lies beside an x0 file: its sidecar, and the lines of its journals."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lvd.utils.schema import Finite, Name, Positive, Schema
from lvd.x0.levels import Level
from lvd.x0.provenance import Scheduler

Guidance = Annotated[Finite, Field(ge=0)]


class SamplingConfig(Schema, extra="allow"):
    """The sampling YAML of MagicTime that a recording was made by."""

    noise_scheduler_kwargs: dict[str, Any] = {}


class MadeBy(Schema, extra="allow"):
    """What made a recording, as far as anything is computed from it."""

    x0_mode: Literal["true", "released"] = "true"
    scheduler: Scheduler = None
    config: SamplingConfig = SamplingConfig()
    pipeline: Name = "-"
    layout: Name = "-"
    guidance_scale: Guidance | None = None
    scaling_factor: Annotated[Finite, Field(gt=0)] | None = None


class RowInfo(Schema, extra="allow"):
    """What is known of one row."""

    timesteps: list[Finite] | None = None
    levels: list[Level] | None = None
    guidance_scale: Guidance | None = None
    prompt: str | None = None
    video: Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*$")] | None = None  # a file name


Shape = Annotated[list[Positive], Field(min_length=6, max_length=6)]
Shards = Annotated[list[Positive], Field(min_length=1, max_length=10_000)]


class Growing(Schema):
    """What a recording becomes, while rows are added to it."""

    shape: Shape
    shards: Shards


class Sidecar(Schema, extra="allow"):
    """The sidecar of a recording."""

    format: int
    shape: Shape
    dtype: Name
    meta: MadeBy
    shards: Shards = None  # rows of each shard; a recording of one file does not say it
    growing: Growing = None
    earlier_fingerprints: list[Name] = []
    rows: dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], RowInfo]


class Line(Schema):
    """A line of a journal."""

    row: int
    info: RowInfo
