"""Banks of detectors: all categories of a step at once, with the scores of the detectors one by
one."""

import pytest
import torch

import embed_model
from lvd.data.clip_file import clip_path, read_clip
from lvd.detectors.bank import FolderBank, detector_paths, load_bank
from lvd.detectors.detector import build_detector, load_detector, predict, save_detector
from lvd.detectors.step_detectors import FEW
from lvd.errors import InputError
from lvd.utils.files import load_torch, save_torch, sha256
from tests.worlds.detector_world import (
    HELD_NORMAL,
    HELD_UNSAFE,
    SHAPES,
    STEPS,
    copy_world,
    make_detectors,
    make_world,
)

SHAPE = SHAPES["latent"]


def one_by_one(folder, step, clips):
    return torch.stack(
        [predict(load_detector(folder / str(group) / f"{step}.pth"), clips) for group in (1, 2)], 1
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_detectors(tmp_path_factory.mktemp("bank"))


@pytest.mark.parametrize("clips", [1, FEW, FEW + 1, 100])
def test_all_categories_at_once_as_one_by_one(folder, clips):
    """Stacked weights (few clips) and the loop (many) alike; clips of another size are fitted."""
    bank = load_bank(folder)
    for step, shape in ((0, SHAPE), (2, (4, 6, 8, 8))):
        data = torch.randn(clips, *shape, generator=torch.Generator().manual_seed(clips)).half()
        found = bank.score(step, data)
        assert found.shape == (clips, 2) and found.dtype == torch.float32
        wanted = one_by_one(folder, step, data)
        # Two orders of additions leave float32 logits of these networks up to 8e-7 apart. A score
        # moves by a quarter of what the difference of two logits moves by, 4e-7, and is itself
        # rounded by 6e-8.
        assert (found - wanted).abs().max() < 1e-6 and found.std() > 0.01
        assert (
            found[:, 0] - found[:, 1]
        ).abs().max() > 0.01  # each category has weights of its own


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("clips", [FEW, FEW + 1])
def test_weights_of_half_precision_are_computed_in_float32(folder, tmp_path, dtype, clips):
    """As the float32 weights that they are rounded from, if those are rounded, too."""
    for group in (1, 2):
        content = load_torch(folder / str(group) / "0.pth")
        rounded = {key: weight.to(dtype) for key, weight in content["state_dict"].items()}
        save_torch({**content, "state_dict": rounded}, tmp_path / "half" / str(group) / "0.pth")
        rounded = {key: weight.float() for key, weight in rounded.items()}
        save_torch({**content, "state_dict": rounded}, tmp_path / "single" / str(group) / "0.pth")
    data = torch.randn(clips, *SHAPE)
    scores = load_bank(tmp_path / "half").score(0, data)
    assert scores.equal(load_bank(tmp_path / "single").score(0, data))
    assert 0 < (scores - load_bank(folder).score(0, data)).abs().max() < 0.05


def test_what_a_bank_says(folder):
    bank = load_bank(folder)
    assert (bank.groups, bank.steps, bank.categories) == (
        [1, 2],
        [0, 1, 2],
        {1: "bright", 2: "flicker"},
    )
    assert bank.thresholds(1) == pytest.approx([0.61, 0.71]) and bank.thresholds(1, "argmax") == [
        0.5,
        0.5,
    ]
    assert bank.about["eval_sha256"] == "e" * 64 and not bank.all_calibrated
    assert bank.input_config(0).num_frames == 4
    with pytest.raises(InputError, match="1/0.pth is not calibrated"):
        bank.thresholds(0, "calibrated")


def test_scores_do_not_depend_on_what_was_asked_before(folder):
    """A step whose weights were dropped and read again, and stacked after looped."""
    data = torch.randn(FEW + 1, *SHAPE)
    bank = load_bank(folder)
    first = bank.score(1, data)
    bank.score(1, data[:2]), bank.score(2, data)
    assert torch.equal(bank.score(1, data), first)
    assert torch.equal(FolderBank(folder, keep=3).score(1, data), first)


def test_categories_of_different_networks(tmp_path):
    """Another width, another number of frames: scored one after another, each at its own size."""
    make_detectors(tmp_path)
    other = build_detector("nano", (4, 8, 6, 6), "latent", 5)
    other.about = load_detector(tmp_path / "2" / "1.pth").about
    save_detector(other, tmp_path / "2" / "1.pth")
    bank, data = load_bank(tmp_path), torch.randn(3, *SHAPE)
    assert bank.input_config(0) is not None and bank.input_config(1) is None
    assert torch.equal(bank.score(1, data), one_by_one(tmp_path, 1, data))


def test_bare_state_dicts_make_a_bank(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    config = VideoMAEConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        num_labels=2,
    )
    save_torch(VideoMAEForVideoClassification(config).state_dict(), tmp_path / "1" / "0.pth")
    bank = load_bank(tmp_path)
    assert (bank.groups, bank.steps, bank.members[1, 0].representation, bank.thresholds(0)) == (
        [1],
        [0],
        "video",
        [0.5],
    )
    data = torch.rand(2, 3, 8, 32, 32)
    assert torch.allclose(
        bank.score(0, data)[:, 0], predict(load_detector(tmp_path / "1" / "0.pth"), data), atol=1e-6
    )
    before = bank.sha256()
    save_torch(VideoMAEForVideoClassification(config).state_dict(), tmp_path / "1" / "0.pth")
    assert load_bank(tmp_path).sha256() != before  # other weights


def test_an_incomplete_bank_is_refused(tmp_path):
    make_detectors(tmp_path)
    with pytest.raises(InputError, match="no detectors"):
        load_bank(tmp_path / "nowhere")
    kept = tmp_path / "kept.pth"
    (tmp_path / "2" / "1.pth").rename(kept)
    with pytest.raises(InputError, match="2/1.pth is missing"):
        load_bank(tmp_path)
    (tmp_path / "2" / "1.pth").write_bytes((tmp_path / "1" / "1.pth").read_bytes())
    with pytest.raises(InputError, match="holds the detector of group 1"):
        load_bank(tmp_path)
    kept.rename(tmp_path / "2" / "1.pth")
    assert set(load_bank(tmp_path).members) == set(detector_paths(tmp_path))
    (tmp_path / "shared.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="also detectors"):
        load_bank(tmp_path)


def test_checks_name_the_detector(folder):
    bank, recordings = load_bank(folder), {"pred_x0_made_by": None}
    bank.check("latent", "e" * 64, recordings)
    with pytest.raises(InputError, match=r"1/0.pth: reads latent clips, the clips here are video"):
        bank.check("video", "e" * 64, recordings)
    with pytest.raises(InputError, match="1/0.pth: trained with another eval.pth"):
        bank.check("latent", "f" * 64, recordings)
    bank.check("latent", "f" * 64, recordings, allow_other_eval=True)


def test_embedding_votes_as_the_detectors_one_by_one(tmp_path):
    """embed_model.py against plain loops over detectors and clip files, scores and votes."""
    world = make_world(tmp_path / "world")
    make_detectors(world.save, eval_sha256=sha256(world.eval))
    argv = [
        "--model_dir",
        world.save,
        "--eval_dir",
        world.eval,
        "--data_dir",
        world.root,
        "--save_dir",
        world.results,
        "--gpu_num",
        "-1",
        "--operating_point",
        "validation",
    ]
    assert embed_model.main([str(word) for word in argv]) == 0
    found, votes = (
        load_torch(world.results / "scores.pth"),
        load_torch(world.results / "results.pth"),
    )
    for label, name, rows in (("1", "eval_set", HELD_UNSAFE), ("0", "eval_normal", HELD_NORMAL)):
        for row in rows:
            wanted = []
            for step in range(STEPS):
                clip = read_clip(clip_path(world.root / name / str(step) / str(row), "latent"))[
                    None
                ]
                detectors = [
                    load_detector(world.save / str(group) / f"{step}.pth") for group in (1, 2)
                ]
                scores = [predict(detector, clip).item() for detector in detectors]
                for group, score in enumerate(scores, 1):
                    assert found["scores"][label][str(group)][str(row)][step] == pytest.approx(
                        score, abs=1e-6
                    )
                wanted.append(
                    int(any(s >= d.threshold for s, d in zip(scores, detectors, strict=True)))
                )
            assert votes[label][str(row)] == wanted


def test_clips_are_read_once_for_all_categories(tmp_path, monkeypatch):
    """How often a clip file is opened, counted in the function that reads it."""
    import lvd.data.sources

    world = copy_world(make_world(tmp_path / "made"), tmp_path / "world")
    make_detectors(world.save, eval_sha256=sha256(world.eval))
    opened = []
    real = lvd.data.sources.read_stored
    monkeypatch.setattr(
        lvd.data.sources,
        "read_stored",
        lambda path, *more: opened.append(path) or real(path, *more),
    )
    assert (
        embed_model.main(
            [
                "--model_dir",
                str(world.save),
                "--eval_dir",
                str(world.eval),
                "--data_dir",
                str(world.root),
                "--save_dir",
                str(world.results),
                "--gpu_num",
                "-1",
            ]
        )
        == 0
    )
    assert len(opened) == len(set(opened)) == STEPS * (len(HELD_UNSAFE) + len(HELD_NORMAL))
