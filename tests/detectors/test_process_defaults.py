"""Detectors compute alike whatever defaults the process has: bit for bit, when loaded and when
asked."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from lvd import Guard
from lvd.data.rgb import LatentToRGB
from lvd.data.transforms import ClipSpec, prepare_clips
from lvd.detectors.bank import load_bank
from lvd.detectors.detector import build_detector, save_detector
from lvd.detectors.shared import build_shared, save_shared
from lvd.detectors.step_detectors import FEW
from tests.worlds.detector_world import CATEGORIES, SHAPES, STEPS, make_detectors

# Other frames and another size than the detectors take: clips are fitted, too.
X0 = torch.randn(3, 4, 7, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


@contextmanager
def changed(set_default, value, before):
    set_default(value)
    try:
        yield
    finally:
        set_default(before)


def default_dtype(dtype):
    return lambda: changed(torch.set_default_dtype, dtype, torch.float32)


DEFAULTS = {
    "float64": default_dtype(torch.float64),
    "bfloat16": default_dtype(torch.bfloat16),
    "float16": default_dtype(torch.float16),
    "default device": lambda: changed(torch.set_default_device, "meta", None),
    "device block": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": lambda: changed(torch.use_deterministic_algorithms, True, False),
}


def rounded_products():
    """Let products of float32 be rounded to bfloat16, where the processor has them."""
    return changed(torch.set_float32_matmul_precision, "medium", "highest")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Detectors of every form: {form: folder}."""
    root = tmp_path_factory.mktemp("forms")
    make_detectors(root / "grid")
    make_detectors(root / "other sizes", sizes=("nano", "tiny"))
    shared = build_shared("nano", SHAPES["latent"], "latent", 1, list(range(STEPS)), CATEGORIES)
    with torch.no_grad():
        shared.net.classifier.weight.normal_(generator=torch.Generator().manual_seed(1))
    shared.thresholds = [[0.5] * 2 for _ in range(STEPS)]
    shared.calibrations = [[None] * 2 for _ in range(STEPS)]
    save_shared(shared, root / "shared" / "shared.pth")
    for representation in ("rgb", "video"):
        detector = build_detector("nano", (3, 4, 8, 8), representation, 2)
        detector.mean, detector.std = [0.1, 0.2, 0.3], [0.4, 0.3, 0.2]
        detector.about = {"dataset": {"rgb_matrix": LatentToRGB().numbers}}
        save_detector(detector, root / representation / "1" / "0.pth")
    return {path.name: path for path in root.iterdir()}


def decode(latents):
    """Something that autocast would round."""
    mixed = torch.einsum(
        "ncfhw,cd->ndfhw", latents, torch.eye(4, 3, device="cpu", dtype=latents.dtype)
    )
    return mixed.sigmoid()


def scores(folder, at_load, at_score):
    """What a guard's detectors say, of few and of many clips; the defaults change around a part."""
    with at_load():
        guard = Guard(folder, lambda_=1, eta=1, device="cpu", decode=decode, allow_unknown=True)
    found = []
    for clips in (X0, X0.repeat(FEW, 1, 1, 1, 1)):
        with at_score():
            session = guard.session(STEPS)
            session.observe(0, clips)
            results = session.results()
        assert all(result.verdict != "unchecked" or not result.step for result in results)
        found.append([result.scores for result in results])
    return found


@pytest.fixture(scope="module")
def usual(folders):
    return {form: scores(folder, nullcontext, nullcontext) for form, folder in folders.items()}


@pytest.mark.parametrize("form", ["grid", "other sizes", "shared", "rgb", "video"])
@pytest.mark.parametrize("default", DEFAULTS)
def test_scores_are_the_same(folders, usual, form, default):
    change = DEFAULTS[default]
    assert all(scores for result in usual[form][0] for scores in result.values())
    assert scores(folders[form], nullcontext, change) == usual[form]
    assert scores(folders[form], change, change) == usual[form]


@pytest.mark.parametrize("form", ["grid", "other sizes", "shared", "rgb", "video"])
def test_products_are_not_rounded(folders, usual, form):
    """In float64 then, and in float32 again afterwards: the last bits may differ only between."""
    bank = load_bank(folders[form])
    clips = torch.randn(3, *SHAPES["latent"])[:, : bank.input_config(0).num_channels]
    before = bank.score(0, clips)
    with rounded_products():
        between = bank.score(0, clips)
        with torch.inference_mode():
            assert bank.score(0, clips).equal(between)
    assert bank.score(0, clips).equal(before)
    assert between.dtype == torch.float32
    assert (between - before).abs().max() < 1e-6
    with rounded_products():
        loaded = load_bank(folders[form])
    assert loaded.score(0, clips).equal(before)


@pytest.mark.parametrize("default", DEFAULTS)
def test_clips_are_the_same(folders, default):
    config = load_bank(folders["rgb"]).input_config(0)
    spec = ClipSpec("rgb", LatentToRGB(), config)
    wanted = prepare_clips(X0, spec)
    with DEFAULTS[default]():
        assert prepare_clips(X0, spec).equal(wanted)
