"""Damaged recordings, sidecars and journals; clips, the notes of their folders, rgb matrices."""

import pytest

import build_x0
from lvd.data.sources import FolderClips
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling
from tests.fuzz import shapes as s
from tests.fuzz.campaign import JSON, LINES, TORCH, YAML, Kind, campaign
from tests.fuzz.oracle import run_loader, run_script
from tests.fuzz.worlds import ROWS, STEPS

SHAPE = [ROWS, STEPS, 4, 4, 4, 4]  # N, S, C, F, h, w
SCALAR = s.either(s.name, s.number(), s.boolean)
ROW = s.mapping(
    {},
    {
        "prompt": s.maybe(s.text),
        "timesteps": s.both(s.list_of(s.number(0, 1e6)), lambda steps: len(steps) == STEPS),
    },
    rest=s.anything,
)
SCHEDULER = s.mapping(rest=SCALAR)  # compared with that of other recordings, not computed with
META = s.mapping(
    {},
    {
        "config": s.mapping({}, {"noise_scheduler_kwargs": SCHEDULER}, rest=s.anything),
        "x0_mode": s.one_of("true", "released"),
        "scaling_factor": s.both(s.number(0), bool),
        "scheduler": s.mapping({"class": s.name}, rest=SCALAR),
    },
    rest=s.anything,
)


def rows_of(info):
    return s.both(s.mapping(rest=info), lambda rows: rows.keys() <= set(map(str, range(ROWS))))


SIDECAR = s.mapping(
    {
        "format": s.one_of(1),
        "shape": lambda shape: shape == SHAPE,
        "dtype": s.one_of("float32"),
        "meta": META,
        "rows": rows_of(ROW),
    },
    rest=s.anything,
)
JOURNAL = s.list_of(s.mapping({"row": s.whole(0, ROWS - 1), "info": ROW}, rest=s.anything))
THREE = s.both(s.list_of(s.number(-1e6, 1e6)), lambda row: len(row) == 3)
MATRIX = s.mapping(
    {"matrix": s.both(s.list_of(THREE), lambda rows: len(rows) == 4), "bias": THREE},
    rest=s.anything,
)
BUILT = s.mapping(
    {"steps": s.list_of(s.whole(0, STEPS - 1)), "videos": s.mapping(rest=s.whole(0, ROWS))},
    rest=s.anything,
)
HASH = s.maybe(s.text)
MADE_BY = s.maybe(  # a dataset made by something else has none
    s.mapping(
        {},
        {
            "categories": s.maybe(s.list_of(s.name, unique=True)),
            **dict.fromkeys(("label_sha256", "pred_x0_made_by", "normal_pred_x0_made_by"), HASH),
            "sampling": s.maybe(s.mapping(rest=s.anything)),
            "rgb_matrix": s.maybe(s.list_of(THREE)),
        },
        rest=s.anything,
    )
)


def built(world, *words):
    """One step of a dataset, built from the recordings."""
    return run_script(build_x0, world.commands("build_x0", "--steps", "0", *words))


def rgb(world):
    return built(world, "--representation", "rgb", "--rgb_matrix", str(world.rgb))


def opened(folder):
    """What scripts read of a recording: its rows, and how it was sampled."""

    def load(world):
        x0 = open_x0_file(world.root / folder / "pred_x0.pth")
        return x0.rows, recorded_sampling(x0), x0.fingerprint

    return lambda world: run_loader(lambda: load(world))


def trained_on(world):
    """What a training reads of a dataset: its notes, and all clips of a step."""

    def load():
        source = FolderClips(world.data)
        source.need_steps(source.steps)
        rows = {group: source.group_rows(group, 0) for group in source.groups}
        clips = source.read("unsafe", source.rows("unsafe", 0), 0)
        return rows, source.categories, dict(source.sampling), clips.isfinite().all()

    return run_loader(load)


def sampled_alike(world, content, outcome, sound):
    """Two recordings make a dataset only if they were sampled alike."""
    normal = JSON.read(world.normal / "pred_x0.json")
    here, there = _sampling(content), _sampling(normal)
    for key in here:
        if here[key] is not None and there[key] is not None and here[key] != there[key]:
            return f"accepted, though {key} differs from the normal recording's"


def _sampling(sidecar):
    infos = [info for info in sidecar["rows"].values() if info.get("timesteps")]
    timesteps = [info["timesteps"] for info in infos]
    same = all(one == timesteps[0] for one in timesteps)
    config = sidecar["meta"].get("config", {})
    return {
        "x0_mode": sidecar["meta"].get("x0_mode"),
        "scheduler": config.get("noise_scheduler_kwargs"),
        "guidance_scale": config.get("guidance_scale"),
        "timesteps": (timesteps[0] if same else timesteps) if timesteps else None,
    }


WORDS = {
    "row": ("row ", "line "),
    "info": ("line ",),
    "rows": ("row ",),
    "noise_scheduler_kwargs": ("scheduler",),
}
RECORDINGS = ("build_yaml", "label_csv", "unsafe", "normal")
KINDS = [
    (
        Kind(
            "pred_x0.json",
            "unsafe/pred_x0.json",
            JSON,
            RECORDINGS,
            built,
            s.maybe(SIDECAR),
            named=("pred_x0.json", "unsafe/pred_x0.pth"),
            words=WORDS,
            right=sampled_alike,
        ),
        120,
    ),
    (
        Kind(
            "pred_x0.json, opened",
            "unsafe/pred_x0.json",
            JSON,
            ("unsafe",),
            opened("unsafe"),
            s.maybe(SIDECAR),
            named=("pred_x0.json", "unsafe/pred_x0.pth"),
            words=WORDS,
        ),
        100,
    ),
    (
        Kind(
            "a journal",
            "journal/pred_x0.rows.0.jsonl",
            LINES,
            ("journal",),
            opened("journal"),
            s.maybe(JOURNAL),
            named=("pred_x0.rows.0.jsonl", "journal/pred_x0.pth"),
            words=WORDS,
        ),
        70,
    ),
    (
        Kind(
            "pred_x0.pth",
            "unsafe/pred_x0.pth",
            TORCH,
            RECORDINGS,
            built,
            s.both(s.tensor(*SHAPE), lambda tensor: str(tensor.dtype) == "torch.float32"),
            named=("pred_x0.pth", "pred_x0.json"),
            bytes=0.5,
        ),
        60,
    ),
    (
        Kind(
            "a clip",
            "data/group1/0/0.pt",
            TORCH,
            ("data",),
            trained_on,
            s.tensor(4, 4, 4, 4),
            named=("group1/0",),
            bytes=0.5,
        ),
        60,
    ),
    (
        Kind(
            "built.json",
            "data/built.json",
            JSON,
            ("data",),
            trained_on,
            BUILT,
            named=("built.json", "~/data"),
            words={"steps": ("step ",), "videos": ("clips", "folder")},
        ),
        60,
    ),
    (
        Kind(
            "representation.json",
            "data/representation.json",
            JSON,
            ("data",),
            trained_on,
            s.maybe(s.mapping({"representation": s.one_of("latent")}, rest=s.anything)),
            named=("representation.json", "data"),
        ),
        40,
    ),
    (Kind("config.yaml of clips", "data/config.yaml", YAML, ("data",), trained_on, MADE_BY), 80),
    (
        Kind(
            "latent_rgb.json",
            "latent_rgb.json",
            JSON,
            RECORDINGS,
            rgb,
            MATRIX,
            named=("latent_rgb.json", "rgb_matrix"),
        ),
        60,
    ),
]


@pytest.mark.parametrize("kind, count", KINDS, ids=[kind.name for kind, _ in KINDS])
def test_damaged(cases, kind, count):
    campaign(kind, cases, count)
