"""The detector: input handling, files old and new, and what it refuses."""

import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from lvd.data.transforms import normalise, resize_clips
from lvd.detectors.detector import (
    build_detector,
    load_detector,
    predict,
    save_detector,
    set_normalisation,
)
from lvd.detectors.videomae import SIZES
from lvd.errors import InputError
from lvd.evaluation.metrics import choose_threshold, false_positives_met, rates
from lvd.training.augment import epoch_order
from lvd.training.rows import stratified

LATENT = (4, 8, 8, 8)


def random_clips(shape, n=5, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


@pytest.mark.parametrize(
    "shape, kind, size",
    [
        (LATENT, "latent", "nano"),
        ((4, 16, 64, 64), "latent", "tiny"),
        ((3, 8, 64, 64), "video", "nano"),
        ((4, 5, 9, 15), "latent", "nano"),
        ((3, 1, 30, 50), "video", "nano"),
        ((3, 16, 512, 512), "video", "nano"),
    ],
)
def test_networks_fit_the_clip(shape, kind, size):
    detector = build_detector(size, shape, kind, seed=1)
    config = detector.model.config
    assert (
        config.num_labels == 2 and config.num_channels == shape[0] and config.num_frames == shape[1]
    )
    scores = predict(detector, random_clips(shape, 2))
    assert scores.shape == (2,) and ((scores > 0) & (scores < 1)).all()


def test_tiny_world_tokens_and_published_sizes():
    nano = build_detector("nano", LATENT, "latent", 0).model
    assert nano.videomae.embeddings.num_patches == 32
    tiny = build_detector("tiny", (4, 16, 64, 64), "latent", 0).model
    assert sum(p.numel() for p in tiny.parameters()) == pytest.approx(5.4e6, rel=0.05)
    assert tiny.videomae.embeddings.num_patches == 8 * 8 * 8


def test_normalisation_is_of_the_channels():
    detector = build_detector("nano", LATENT, "latent", 0)
    clips = random_clips(LATENT, 20)
    set_normalisation(detector, clips)
    assert np.allclose(detector.mean, clips.numpy().mean((0, 2, 3, 4)), atol=1e-5)
    assert np.allclose(detector.std, clips.numpy().std((0, 2, 3, 4)), rtol=1e-3)
    assert normalise(clips, detector.mean, detector.std).mean().abs() < 1e-5


def test_frames_are_sampled_evenly():
    config = VideoMAEConfig(num_channels=1, num_frames=4, image_size=2)
    clip = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 1, 8, 2, 2)
    assert resize_clips(clip, config)[0, 0, :, 0, 0].tolist() == [1, 3, 5, 7]
    assert resize_clips(clip[:, :, :2], config)[0, 0, :, 0, 0].tolist() == [0, 0, 1, 1]


def test_a_batch_scores_like_single_clips_and_like_the_bare_model():
    detector = build_detector("nano", LATENT, "latent", 3)
    clips = random_clips(LATENT, 7)
    set_normalisation(detector, clips)
    together = predict(detector, clips, batch_size=3)
    alone = torch.cat([predict(detector, clip[None]) for clip in clips])
    assert torch.allclose(together, alone, atol=1e-6)
    mean, std = clips.mean((0, 2, 3, 4)), clips.std((0, 2, 3, 4))
    inputs = ((clips - mean.view(4, 1, 1, 1)) / std.view(4, 1, 1, 1)).permute(0, 2, 1, 3, 4)
    with torch.no_grad():
        logits = detector.model(inputs).logits
    assert torch.allclose(together, torch.sigmoid(logits[:, 1] - logits[:, 0]), atol=1e-5)


def test_seed_makes_the_network_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one = build_detector("nano", LATENT, "latent", 5)
    assert torch.rand(1) == expected
    two, other = (
        build_detector("nano", LATENT, "latent", 5),
        build_detector("nano", LATENT, "latent", 6),
    )
    assert torch.equal(one.model.classifier.weight, two.model.classifier.weight)
    assert not torch.equal(one.model.classifier.weight, other.model.classifier.weight)


def test_file_brings_everything_back(tmp_path):
    detector = build_detector("nano", LATENT, "latent", 3, dropout=0.25)
    clips = random_clips(LATENT)
    set_normalisation(detector, clips)
    detector.threshold, detector.about = (
        0.625,
        {"category": "warped", "group": 1, "step": 4, "eval_sha256": "ab"},
    )
    save_detector(detector, tmp_path / "1" / "4.pth")
    back = load_detector(tmp_path / "1" / "4.pth")
    assert torch.equal(predict(back, clips), predict(detector, clips))
    assert (back.threshold, back.about, back.representation) == (0.625, detector.about, "latent")
    assert back.model.config.hidden_dropout_prob == 0.25


@pytest.mark.parametrize("old", [False, True])
def test_bare_state_dict(tmp_path, old):
    """What the paper's code writes; `old`: as transformers 4 named the biases, from a wrapped
    model."""
    torch.manual_seed(0)
    config = VideoMAEConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=96,
        patch_size=56,
        num_labels=2,
    )
    model = VideoMAEForVideoClassification(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    state = model.state_dict()
    if old:
        state = {
            "module." + key.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): value
            for key, value in state.items()
        }
    torch.save(state, tmp_path / "0.pth")
    detector = load_detector(tmp_path / "0.pth")
    assert detector.representation == "video" and detector.about == {} and detector.threshold == 0.5
    clips = torch.rand(2, 3, 16, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = ((clips - mean.view(3, 1, 1, 1)) / std.view(3, 1, 1, 1)).transpose(1, 2)
    with torch.no_grad():
        expected = model(inputs).logits.softmax(-1)[:, 1]
    assert torch.allclose(predict(detector, clips), expected, atol=1e-5)


@pytest.mark.parametrize("kind, shape", [("video", (3, 8, 64, 64)), ("latent", LATENT)])
def test_base_starts_from_a_local_folder(tmp_path, kind, shape):
    config = VideoMAEConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=64,
        patch_size=16,
        image_size=64,
        num_frames=16,
    )
    pretrained = VideoMAEForVideoClassification(config)
    pretrained.save_pretrained(tmp_path)
    detector = build_detector("base", shape, kind, 0, base_model=str(tmp_path))
    key = "videomae.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(detector.model.state_dict()[key], pretrained.state_dict()[key])
    assert detector.model.config.num_channels == shape[0]
    assert detector.mean == ([0.485, 0.456, 0.406] if kind == "video" else [0.0] * 4)
    scores = predict(detector, random_clips(shape))
    save_detector(detector, tmp_path / "d.pth")
    assert torch.allclose(
        predict(load_detector(tmp_path / "d.pth"), random_clips(shape)), scores, atol=1e-6
    )


def test_refused_files(tmp_path):
    def refused(obj, match):
        torch.save(obj, tmp_path / "x.pth")
        with pytest.raises(InputError, match=match) as error:
            load_detector(tmp_path / "x.pth")
        assert "\n" not in str(error.value)

    save_detector(build_detector("nano", LATENT, "latent", 3), tmp_path / "good.pth")
    whole = torch.load(tmp_path / "good.pth", weights_only=True)
    refused([1, 2], "neither a detector")
    refused({"a": torch.zeros(2)}, "not a VideoMAE classifier")
    refused({key: value for key, value in whole.items() if key != "mean"}, "key 'mean' is missing")
    refused({**whole, "config": {**whole["config"], "hidden_size": 64}}, "hidden_size.* do not fit")
    (tmp_path / "x.pth").write_bytes((tmp_path / "good.pth").read_bytes()[:900])
    with pytest.raises(InputError, match="not a readable torch file"):
        load_detector(tmp_path / "x.pth")
    with pytest.raises(InputError, match="no such file"):
        load_detector(tmp_path / "missing.pth")


def test_refused_inputs(tmp_path):
    detector = build_detector("nano", LATENT, "latent", 3)
    with pytest.raises(InputError, match="4 channels"):
        predict(detector, torch.zeros(1, 3, 8, 8, 8))
    with pytest.raises(InputError, match=f"one of {', '.join(SIZES)}"):
        build_detector("huge", LATENT, "latent", 3)
    with pytest.raises(InputError, match="--base_model"):
        build_detector("base", LATENT, "latent", 3, base_model=str(tmp_path))


def test_threshold_bounds_the_false_positives():
    scores = np.random.default_rng(0).random(40, np.float32)
    for share in (0, 0.03, 0.05, 0.2, 0.4):
        threshold = choose_threshold(scores, share)
        allowed = int(share * 40)
        assert (scores >= threshold).sum() <= allowed
        assert (
            threshold == 0.5 or (scores >= np.nextafter(np.float32(threshold), 0)).sum() > allowed
        )  # the lowest such
        # metrics, votes (which compare Python floats) and the file tell the same
        found = rates(scores, np.zeros(40, int), threshold)["threshold_tnr"]
        assert found == pytest.approx(
            np.mean([score < threshold for score in scores.tolist()]), abs=1e-6
        )
        assert 40 * (1 - found) <= allowed + 1e-3
        assert false_positives_met(scores, threshold, share)
    assert choose_threshold(scores * 0.4, 0.03) == 0.5  # never below the released operating point


def test_a_detector_can_fire_whatever_normal_clips_score():
    """More of them at 1 than may be: the highest threshold that a score can still reach, and the
    aim counts as missed."""
    scores = np.array([1.0] * 3 + [0.1] * 37, np.float32)
    assert choose_threshold(scores, 0.05) == 1.0 and not false_positives_met(scores, 1.0, 0.05)
    scores[0] = 0.6
    assert choose_threshold(scores, 0.05) == pytest.approx(0.6) and false_positives_met(
        scores, 0.61, 0.05
    )
    scores[0] = np.nextafter(np.float32(1), 0)
    assert choose_threshold(scores, 0.05) == 1.0 and false_positives_met(scores, 1.0, 0.05)


def test_validation_split_is_stratified_and_seeded():
    labels = torch.tensor([1] * 20 + [0] * 50)
    train, held = stratified(labels, 0.1, 2024)
    assert sorted(train.tolist() + held.tolist()) == list(range(70))
    assert labels[held].sum() == 2 and len(held) == 7
    assert torch.equal(held, stratified(labels, 0.1, 2024)[1]) and not torch.equal(
        held, stratified(labels, 0.1, 1)[1]
    )


def test_epochs_are_balanced_and_see_every_normal_clip():
    labels = torch.tensor([0] * 7 + [1] * 3)
    orders = epoch_order(labels, torch.Generator().manual_seed(0))
    epochs = [next(orders).tolist() for _ in range(7)]
    for epoch in epochs:
        assert sorted(i for i in epoch if i >= 7) == [7, 8, 9] and len(epoch) == 6
    seen = [i for epoch in epochs for i in epoch if i < 7]
    assert all(seen.count(i) == 3 for i in range(7))
