"""Pictures with a palette look like those before."""

import numpy as np
from PIL import Image

from tests.worlds.refusals import refused
from tools import smaller_pictures


def test_smaller_and_nearly_the_same(tmp_path):
    ramp = np.linspace(0, 255, 300)
    shades = np.stack([ramp[:, None] + 0 * ramp, 0 * ramp[:, None] + ramp], 2)
    shades += np.random.default_rng(0).normal(0, 2, shades.shape)  # else it is very small before
    colours = np.concatenate([shades, 255 - shades[..., :1]], 2).clip(0, 255).astype(np.uint8)
    path = tmp_path / "ramp.png"
    Image.fromarray(colours).save(path)
    before = path.stat().st_size
    assert smaller_pictures.main([str(tmp_path)]) == 0
    assert path.stat().st_size < before
    now = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert np.abs(now - colours).mean() < 6
    written = path.read_bytes()
    assert smaller_pictures.main([str(tmp_path)]) == 0
    assert path.read_bytes() == written  # a second time changes nothing


def test_what_is_no_picture_is_refused(tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"no picture")
    refused(smaller_pictures.main([str(tmp_path)]), capsys, "x.png", "PNG")
    refused(smaller_pictures.main([str(tmp_path / "none")]), capsys, "none", "no such folder")
