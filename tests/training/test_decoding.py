"""Recorded videos that would be decoded for days are refused before the first; others are not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lvd.errors import InputError
from lvd.training.decoding import need_few_decodings, need_hours
from lvd.training.recipes import SharedSettings

SETTINGS = SharedSettings(size="small")


def job(latents, steps=50, representation="video"):
    source = SimpleNamespace(representation=representation, latent_shape=latents)
    return SimpleNamespace(source=source, steps=list(range(steps)), settings=SETTINGS)


def test_the_papers_study_is_refused_in_one_line():
    """2,271 videos of 50 steps, 17 times: 40.2 TFLOP each at 94 TFLOPS are 229 hours."""
    with pytest.raises(InputError) as told:
        need_few_decodings(job((4, 16, 64, 64)), 2271)
    words = "113,550 clips fill 509 GiB", "16 epochs: about 229 hours of an H100", "--data_dir"
    assert all(word in str(told.value) for word in words) and len(str(told.value)) < 300
    with pytest.raises(InputError, match="--model both: .*representation latent or rgb"):
        need_hours("--model both", 113_550, (3, 16, 512, 512), SETTINGS)


@pytest.mark.parametrize(
    "others, videos",
    [
        (job((4, 8, 8, 8)), 2000),  # the tiny world
        (job((4, 16, 64, 64), steps=3), 200),  # in memory
        (job((4, 16, 64, 64), steps=2), 2000),  # some hours
        (job((4, 16, 64, 64), representation="latent"), 2271),
        (job(None), 2271),  # clips in files
    ],
)
def test_others_are_not(others, videos):
    need_few_decodings(others, videos)


def test_more_epochs_take_longer():
    with pytest.raises(InputError, match="400 epochs"):
        need_hours("x", 4000, (3, 16, 512, 512), replace(SETTINGS, epoch=400))
