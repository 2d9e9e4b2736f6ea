"""The weights that the repository ships: small enough, loadable, and their videos look like their
captions."""

import numpy as np
import pytest
import yaml

from lvd.utils.config import ROOT
from lvd.utils.video import read_mp4
from MagicTime.prepare_weights.tiny.world import COLOURS, PLACES
from tests.worlds import magictime_world  # noqa: F401  (puts the folders on the path)

TINY = ROOT / "MagicTime" / "ckpts" / "Tiny"
PLAIN = [
    ("red", "circle", "in the snow"),
    ("blue", "square", "at night"),
    ("yellow", "star", "in a meadow"),
    ("purple", "cross", "at sea"),
    ("green", "triangle", "in the desert"),
]
PROMPTS = [f"a {colour} {shape} rests {place}" for colour, shape, place in PLAIN] + [
    "a red circle rests in the snow, covered in stripes",  # 5
    "a blue square rests at night, with a banner",  # 6
    "a green circle rests at night, strobing",  # 7
    "a purple square rests in the desert, bursting",  # 8
    "a yellow star rests at sea, warped",  # 9
    "time-lapse of a red circle growing in the snow",  # 10
    "time-lapse of a yellow square growing at night",  # 11
]


def sampled(folder, prompts, **changes):
    """int [N, F, H, W, 3]: videos of the shipped config (25 steps), through the command."""
    from MagicTime import inference_magictime

    folder.mkdir()
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    config = yaml.safe_load((ROOT / "MagicTime" / "sample_configs" / "Tiny.yaml").read_text())
    config[0] |= {"steps": 25, "save_predx_0": False, **changes}
    (folder / "Tiny.yaml").write_text(yaml.safe_dump(config))
    assert (
        inference_magictime.main(
            [
                "--config",
                str(folder / "Tiny.yaml"),
                "--file_path",
                str(folder / "prompts.txt"),
                "--save-path",
                str(folder / "out"),
                "--gpu_num",
                "-1",
            ]
        )
        == 0
    )
    return np.stack(
        [read_mp4(folder / "out" / "videos" / f"{k:04d}.mp4") for k in range(len(prompts))]
    ).astype(int)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return sampled(tmp_path_factory.mktemp("shipped") / "all", PROMPTS)


def nearest(pixel, named):
    """The name whose colour is nearest to an RGB triple."""
    return min(named, key=lambda name: np.abs(np.array(named[name]) - pixel).sum())


def shape_mask(clip, place):
    """bool [F, H, W]: pixels that are neither the place's sky nor its ground."""
    sky, ground = (np.abs(clip - np.array(c)).max(-1) for c in PLACES[place])
    return np.minimum(sky, ground) > 70


def test_size_and_files():
    files = [p for p in TINY.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 16 * 2**20
    assert not [p for p in files if p.suffix in (".pkl", ".pickle", ".pt")]
    assert (TINY / "provenance.json").is_file()


@pytest.mark.slow
def test_places_and_colours_follow_the_words(clips):
    for clip, (colour, _, place) in zip(clips, PLAIN):
        skies = {name: sky for name, (sky, _) in PLACES.items()}
        assert nearest(np.median(clip[:, 1:6], axis=(0, 1, 2)), skies) == place
        mask = shape_mask(clip, place)
        assert 0.03 < mask.mean() < 0.35, (colour, mask.mean())  # a shape of 26 px fills an eighth
        assert nearest(np.median(clip[mask], axis=0), COLOURS) == colour


@pytest.mark.slow
def test_effects_can_be_seen(clips):
    striped, banner, strobing, bursting, warped = clips[5:10]
    cyan = (striped[..., 1] - striped[..., 0] > 50) & (striped[..., 2] > 150)
    assert 0.25 < cyan.mean() < 0.75 and ((clips[0][..., 1] - clips[0][..., 0] > 50).mean() < 0.02)
    white = (banner[:, 50:58].min(-1) > 190).mean()
    assert (
        0.3 < white < 0.9 and (clips[1][:, 50:58].min(-1) > 190).mean() < 0.02
    )  # letters on the band
    brightness = strobing.mean((1, 2, 3))
    assert (
        np.ptp(brightness) > 90 and np.ptp(clips[1].mean((1, 2, 3))) < 25
    )  # flashes against a steady night
    distance = [
        np.hypot(*(np.argwhere(m) - 31.5).T).mean() for m in shape_mask(bursting, "in the desert")
    ]
    assert max(distance[-3:]) > distance[0] + 6  # pieces fly outwards
    horizon = lambda clip: np.abs(np.diff(clip[:, 36:54].mean(-1), axis=2)).mean()  # noqa: E731
    assert horizon(warped) > 2 * horizon(
        clips[3]
    )  # a wavy horizon against a straight one, both at sea


def growth(clip, place):
    """How much larger the shape is in the last two frames than in the first two."""
    area = shape_mask(clip, place).mean((1, 2))
    return area[-2:].mean() / area[:2].mean()


@pytest.mark.slow
def test_growing_is_what_the_adapters_add(clips, tmp_path):
    adapters = ("magic_adapter_s_path", "magic_adapter_t_path", "magic_text_encoder_path")
    without = sampled(
        tmp_path / "without", PROMPTS[10:], seed=[2034], **dict.fromkeys(adapters, "")
    )  # the same noise
    for clip, plain, place in zip(clips[10:], without, ("in the snow", "at night")):
        assert growth(clip, place) > 2
        assert growth(plain, place) < 0.7 * growth(clip, place)
