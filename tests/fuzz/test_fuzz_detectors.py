"""Damaged detectors of all forms, pre-trained encoders and unfinished trainings."""

import pytest
import torch

import lvd
import pretrain_mae
import train_mae
from lvd.data.sources import FolderClips
from lvd.data.split import load_split
from lvd.detectors.bank import load_bank
from lvd.detectors.detector import build_detector, load_detector, predict
from lvd.detectors.pretrained import load_pretrained
from lvd.utils.files import sha256
from lvd.x0.file import open_x0_file
from lvd.x0.provenance import recorded_sampling
from tests.fuzz import shapes as s
from tests.fuzz.campaign import TORCH, Kind, campaign
from tests.fuzz.oracle import run_loader, run_script
from tests.fuzz.worlds import STEPS

SHAPE = (4, 4, 4, 4)  # C, F, h, w
HASH = s.both(s.text, lambda text: len(text) == 64)
SIZE = s.whole(1, 10**6)
CONFIG = s.mapping(
    {
        "image_size": s.either(SIZE, s.list_of(SIZE, 2)),
        "patch_size": s.either(SIZE, s.list_of(SIZE, 2)),
        **dict.fromkeys(("num_channels", "num_frames", "tubelet_size", "hidden_size"), SIZE),
        **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "intermediate_size"), SIZE),
    },
    {
        "hidden_act": s.one_of("gelu", "gelu_new", "relu", "silu"),
        "layer_norm_eps": s.number(0, 1),
        "qv_bias": s.boolean,
        "use_mean_pooling": s.boolean,
        "hidden_dropout_prob": s.number(0, 1),
    },
)
SAMPLING = s.mapping(
    {},
    {
        "steps": s.one_of(STEPS),
        "latent_shape": s.both(s.list_of(SIZE, 4), lambda shape: tuple(shape) == SHAPE),
        "x0_dtype": s.one_of("float16", "bfloat16", "float32"),
        "x0_mode": s.one_of("true", "released"),
        "scheduler": s.mapping({"class": s.name}, rest=s.either(s.text, s.number(), s.boolean)),
        "guidance_scale": s.number(),
        "timesteps": s.both(s.list_of(s.number()), lambda steps: len(steps) == STEPS),
    },
)
ABOUT = s.mapping(
    {},
    {
        "group": s.one_of(1),
        "step": s.one_of(0),
        "category": s.name,
        "categories": s.list_of(s.name, 1),
        "eval_sha256": s.maybe(s.text),
        "dataset": s.maybe(s.mapping(rest=s.anything)),
        "sampling": s.maybe(SAMPLING),
    },
    rest=s.anything,
)
CALIBRATION = s.mapping(
    {"a": s.both(s.number(0), bool), "b": s.number()},
    {"method": s.maybe(s.text), "clips": s.maybe(s.mapping(rest=s.whole(0)))},
    rest=s.anything,
)
NUMBERS = s.both(s.list_of(s.number(-1e30, 1e30)), lambda numbers: len(numbers) == 4)
DETECTOR = s.mapping(
    {
        "format": s.text,
        "state_dict": s.weights,
        "config": CONFIG,
        "representation": s.one_of("latent"),
        "mean": NUMBERS,
        "std": s.both(NUMBERS, lambda numbers: min(numbers) > 0),
        "threshold": s.number(0, 1),
        "about": ABOUT,
    },
    {"calibration": s.maybe(CALIBRATION)},
)
BY_STEP = s.list_of(s.both(s.list_of(s.number(0, 1)), lambda row: len(row) == 2), STEPS)
OF_ALL_STEPS = {
    "format": s.text,
    "state_dict": s.weights,
    "config": CONFIG,
    "representation": s.one_of("latent"),
    "steps": s.both(s.list_of(s.whole(0, 10**6), unique=True), lambda n: len(n) == STEPS),
    "categories": s.both(s.list_of(s.name, unique=True), lambda names: len(names) == 2),
    "mean": s.tensor(STEPS, 4),
    "std": s.both(s.tensor(STEPS, 4), lambda std: bool((std > 0).all())),
    "about": ABOUT,
}
SHARED = s.mapping(
    {
        **OF_ALL_STEPS,
        "thresholds": s.both(BY_STEP, lambda rows: len(rows) == STEPS),
        "calibrations": s.list_of(s.list_of(CALIBRATION, 2), STEPS),
    },
    {"levels": s.list_of(s.number(-20, 20), STEPS)},
)
PRETRAINED = s.mapping(
    {
        "format": s.text,
        "state_dict": s.weights,
        "config": CONFIG,
        "representation": s.one_of("latent"),
        "about": s.mapping(
            {
                "rows": s.mapping(dict.fromkeys(("unsafe", "normal"), s.list_of(s.whole()))),
                "eval_sha256": HASH,
            },
            {"dataset": s.maybe(s.mapping(rest=s.anything))},
            rest=s.anything,
        ),
    }
)
WORDS = {
    "state_dict": ("weights", "the same score"),  # what a probe finds of damaged weights
    "config": ("weights",),
    "about": ("sampling", "dataset"),
    "thresholds": ("threshold",),
    "calibrations": ("calibration",),
}
CHECKPOINT = s.mapping(
    {
        "format": s.text,
        "identity": s.mapping(rest=s.anything),
        "net": s.weights,
        "averaged": s.maybe(s.weights),
        "done": s.whole(0, 10**9),
        "curve": s.list_of(s.mapping(rest=s.number())),
        "seconds": s.number(0),
        "data_sha256": HASH,
    },
    rest=s.anything,
)
NO_DETECTOR = ("VideoMAE", "weights", "detector")


def guarded(folder):
    """What a guard makes of detectors: its checks, and the scores of two clips at each step."""

    def load(world):
        guard = lvd.Guard(world.root / folder, 0.6, 2, "cpu")
        guard.check(recorded_sampling(open_x0_file(world.unsafe / "pred_x0.pth")))
        clips = torch.linspace(-1, 1, 512).reshape(2, *SHAPE)
        scores = [guard.bank.score(step, clips) for step in range(2)]
        return scores, [guard.bank.thresholds(step) for step in range(2)]

    return lambda world: run_loader(lambda: load(world))


def bare(world):
    def load():
        detector = load_detector(world.root / "bare" / "1" / "0.pth")
        return [predict(detector, torch.linspace(0, 1, 3 * 16 * 64).reshape(1, 3, 16, 8, 8))]

    return run_loader(load)


def pretrained(world):
    def load():
        source = FolderClips(world.data)
        encoder = load_pretrained(world.pretrained / "pretrained.pth")
        encoder.check("latent", sha256(world.eval), load_split(world.eval), source.made_by)
        detector = build_detector("nano", SHAPE, "latent", 0)
        encoder.into(detector.model)
        return [predict(detector, torch.linspace(-1, 1, 256).reshape(1, *SHAPE))]

    return run_loader(load)


def training(script, name, *words):
    """A training that goes on from its last checkpoint."""

    def run(world):
        save = ["--save_dir", world.half / name, *words]
        return run_script(script, world.commands("pretrain_mae", *save))

    return run


def probabilities(world, content, outcome, sound):
    """All scores are probabilities, one for each clip and category."""
    scores = outcome.value[0]
    for one in scores if isinstance(scores, list) else [scores]:
        if not bool(((one >= 0) & (one <= 1)).all()):
            return f"scores that are no probabilities: {one.flatten()[:4].tolist()}"


def finite_weights(name):
    """A run that goes on ends with finite weights, of the names of an unbroken run's."""

    def right(world, content, outcome, sound):
        there = TORCH.read(world.root / name / f"{name}.pth")["state_dict"]
        here = TORCH.read(world.half / name / f"{name}.pth")["state_dict"]
        if there.keys() != here.keys() or not s.weights(here):
            return "weights that are not finite, or not those of an unbroken run"

    return right


KINDS = [
    (
        Kind(
            "a detector of the grid",
            "grid/1/0.pth",
            TORCH,
            ("grid", "unsafe"),
            guarded("grid"),
            DETECTOR,
            named=("1/0.pth", "grid: detectors of"),
            words=WORDS,
            right=probabilities,
        ),
        140,
    ),
    (
        Kind(
            "shared.pth",
            "shared/shared.pth",
            TORCH,
            ("unsafe",),
            guarded("shared/shared.pth"),
            SHARED,
            words=WORDS,
            right=probabilities,
        ),
        140,
    ),
    (
        Kind(
            "a bare state dict",
            "bare/1/0.pth",
            TORCH,
            (),
            bare,
            s.weights,
            named=("1/0.pth",),
            whole=NO_DETECTOR,
        ),
        40,
    ),
    (
        Kind(
            "pretrained.pth",
            "pretrained/pretrained.pth",
            TORCH,
            ("data", "eval"),
            pretrained,
            PRETRAINED,
            words=WORDS,
        ),
        100,
    ),
    (
        Kind(
            "a checkpoint of the shared detector",
            "half/shared/shared.training.pth",
            TORCH,
            ("data", "eval", "half", "shared", "train_yaml"),
            training(train_mae, "shared", "--model", "shared"),
            s.maybe(CHECKPOINT),  # without one, the training begins anew
            words=WORDS,
            right=finite_weights("shared"),
        ),
        50,
    ),
    (
        Kind(
            "a checkpoint of pre-training",
            "half/pretrained/pretrained.training.pth",
            TORCH,
            ("data", "eval", "half", "pretrained", "train_yaml"),
            training(pretrain_mae, "pretrained"),
            s.maybe(CHECKPOINT),  # without one, the training begins anew
            words=WORDS,
            right=finite_weights("pretrained"),
        ),
        40,
    ),
]


@pytest.mark.parametrize("kind, count", KINDS, ids=[kind.name for kind, _ in KINDS])
def test_damaged(cases, kind, count):
    campaign(kind, cases, count)


def test_the_sound_files_are_read(cases):
    """What the campaigns take for sound: a bank of each form scores."""
    with cases.world("grid", "shared") as world:
        for folder in (world.grid, world.shared):
            assert load_bank(folder).steps == list(range(STEPS))
