"""The guard before it watches: detectors and samplings that it refuses, and how it reads clips."""

import shutil
from types import SimpleNamespace

import diffusers
import pytest
import torch

from lvd import Guard
from lvd.data.kinds import LABEL_UNSAFE
from lvd.detectors.bank import load_bank
from lvd.errors import InputError
from lvd.guard.reader import Reader
from lvd.utils.files import load_torch, save_torch
from lvd.x0.file import X0File
from lvd.x0.provenance import need_same_meaning, recorded_sampling
from lvd.x0.schedulers import describe_scheduler
from tests.worlds.guarded_recordings import SHAPE, STEPS


def test_missing_and_unreadable_detectors_refuse_to_start(world, tmp_path):
    for what in ("missing", "group", "step", "damaged", "one step"):
        folder = tmp_path / what.replace(" ", "_")
        shutil.copytree(world.grid, folder)
        path = folder / "2" / "1.pth"
        if what == "damaged":
            path.write_bytes(path.read_bytes()[:-2000])
        elif what == "group":
            shutil.rmtree(folder / "2")
        elif what == "one step":
            found = load_torch(path)
            found["state_dict"].pop(next(iter(found["state_dict"])))
            save_torch(found, path)
        else:
            for group in ("1", "2") if what == "step" else ("2",):
                (folder / group / "1.pth").unlink()
        with pytest.raises(
            InputError, match="missing|2/1.pth|no detectors of group 2|no detectors of step 1"
        ):
            Guard(folder, 0.6, 3, "cpu")
        if what == "step":
            assert Guard(folder, 0.6, 1, "cpu").eta == 1  # which needs step 0 alone
    for eta in (0, STEPS + 1, 1.5, True):
        with pytest.raises(InputError, match="eta"):
            Guard(world.shared, 0.6, eta, "cpu")
    with pytest.raises(InputError, match="lambda"):
        Guard(world.shared, 1.2, 2, "cpu")
    with pytest.raises(InputError, match="^model_dir=.*nowhere: no detectors"):
        Guard(tmp_path / "nowhere", 0.6, 2, "cpu")
    with pytest.raises(InputError, match="^eta='2': a whole number"):
        Guard(world.shared, 0.6, "2", "cpu")


def test_thresholds_that_say_nothing_refuse_to_start(world, tmp_path):
    found = load_torch(world.shared / "shared.pth")
    found["thresholds"][1][1] = float("nan")
    save_torch(found, tmp_path / "shared.pth")
    with pytest.raises(InputError, match="step 1, loud: threshold nan"):
        Guard(tmp_path, 0.6, 3, "cpu")
    with pytest.raises(InputError, match="^operating_point='sometimes'"):
        Guard(world.shared, 0.6, 3, "cpu", operating_point="sometimes")
    strict, loose = (
        Guard(world.shared, 0.6, 3, "cpu", operating_point=point) for point in ("0.9", 0.1)
    )
    assert (
        strict.bank.thresholds(0, strict.operating_point)[0]
        > loose.bank.thresholds(0, loose.operating_point)[0]
    )


SAMPLING = {"steps": STEPS, "x0_mode": "true", "latent_shape": list(SHAPE)}


@pytest.mark.parametrize("form", ["shared", "grid"])
@pytest.mark.parametrize(
    "key, value, message",
    [
        ("x0_mode", "released", "x0_mode 'true', .*released"),
        ("latent_shape", [4, 3, 8, 8], r"\[4, 3, 4, 8\], this sampling has \[4, 3, 8, 8\]"),
        ("latent_shape", [8, 3, 4, 8], "latents of 4 channels, these have 8"),
        ("levels", [-9.9, -2, -1, 0, 3], "step 0 of this sampling has noise level -9.90"),
    ],
)
def test_another_sampling_is_refused(world, form, key, value, message):
    guard = Guard(getattr(world, form), 0.6, 3, "cpu")
    guard.check(SAMPLING)
    with pytest.raises(InputError, match=message):
        guard.check({**SAMPLING, key: value})
    guard.allow_unknown = True  # which is for what is not known
    with pytest.raises(InputError, match=message):
        guard.check({**SAMPLING, key: value})


def test_another_scheduler_or_setting_is_refused(world, tiny):
    guard = Guard(world.shared, 0.6, 3, "cpu")
    with pytest.warns(UserWarning):  # made to see that it can be
        guard.watch(tiny.pipe)
    right = tiny.pipe.scheduler
    others = {
        "prediction_type": diffusers.FlowMatchEulerDiscreteScheduler(),
        "beta_end": diffusers.DDIMScheduler.from_config(right.config, beta_end=0.03),
        "clip_sample": diffusers.DDIMScheduler.from_config(right.config, clip_sample=True),
    }
    try:
        for name, tiny.pipe.scheduler in others.items():
            with pytest.raises(InputError, match=name):
                guard.watch(tiny.pipe)
    finally:
        tiny.pipe.scheduler = right


def test_how_x0_came_about_reaches_the_detectors(world, tmp_path):
    """From the recording, with or without a dataset of clip files between, into either form of
    detector."""
    import build_x0
    from lvd.data.sources import FolderClips

    assert (
        build_x0.main(
            ["--config", str(world.config), "--out_dir", str(tmp_path / "data"), "--gpu_num", "-1"]
        )
        == 0
    )
    wanted = {
        "steps": STEPS,
        "latent_shape": list(SHAPE),
        "x0_dtype": "float16",
        "x0_mode": "true",
        "timesteps": [800, 600, 400, 200, 0],
    }
    samplings = [
        FolderClips(tmp_path / "data").sampling,
        load_bank(world.shared).about["sampling"],
        load_bank(world.grid).members[2, 3].about["sampling"],
    ]
    for found in samplings:
        assert {key: found[key] for key in wanted} == wanted
        assert (
            found["scheduler"]["class"] == "DDIMScheduler"
            and found["scheduler"]["beta_schedule"] == "linear"
        )
    assert samplings[0] == samplings[1] == samplings[2]


def test_recordings_of_magictime_say_it_in_their_config():
    kwargs = dict(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        steps_offset=1,
        clip_sample=False,
    )
    meta = {"x0_mode": "released", "config": {"noise_scheduler_kwargs": kwargs}}
    x0 = X0File("x", torch.zeros(2, 3, 4, 4, 4, 4), [0], meta, {0: {"timesteps": [667, 334, 1]}})
    found = recorded_sampling(x0)
    assert (found["x0_mode"], found["timesteps"], found["steps"]) == ("released", [667, 334, 1], 3)
    member = SimpleNamespace(path="1/0.pth", about={"sampling": found})
    here = describe_scheduler(diffusers.DDIMScheduler(**kwargs))
    need_same_meaning(
        [member], {"scheduler": here, "timesteps": [667.0, 334.0, 1.0], "x0_mode": "released"}
    )
    with pytest.raises(InputError, match="scheduler: clip_sample_range"):
        need_same_meaning([member], {"scheduler": {**here, "clip_sample": True}})
    assert recorded_sampling(X0File("x", x0.tensor, [0], {})).keys() == {
        "steps",
        "latent_shape",
        "x0_dtype",
    }


def test_detectors_that_do_not_say_what_they_learned_from(world, tiny, tmp_path):
    """As those trained before recordings told: refused, unless the caller vouches for them."""
    found = load_torch(world.shared / "shared.pth")
    del found["about"]["sampling"]
    save_torch(found, tmp_path / "shared.pth")
    with pytest.raises(InputError, match="does not say for which .*give allow_unknown=True if"):
        Guard(tmp_path, 0.6, 3, "cpu").watch(tiny.pipe)
    guard = Guard(tmp_path, 0.6, 3, "cpu", allow_unknown=True)
    with pytest.warns(UserWarning):
        guard.watch(tiny.pipe)
    with pytest.raises(InputError, match="latents of 4 channels, these have 16"):
        guard.check({"latent_shape": [16, 3, 4, 8]})


def test_small_frames_and_videos_are_read_as_recordings_are(world):
    """The reader makes of x0 what lvd.data.sources makes of the same recording."""
    from lvd.data.labels import read_labels
    from lvd.data.recorded_clips import RecordedClips
    from lvd.data.rgb import LatentToRGB

    paths = [world.root / kind / "pred_x0.pth" for kind in ("unsafe", "normal")]
    rgb = LatentToRGB()
    pixels = lambda latents: (  # noqa: E731
        rgb(latents).repeat_interleave(4, -1).repeat_interleave(4, -2) / 2 + 0.5
    )
    for representation, decode in (("latent", None), ("rgb", rgb), ("video", pixels)):
        source = RecordedClips(
            *paths, read_labels(world.root / "label.csv"), representation, decode
        )
        wanted = source.read("unsafe", [3, 4], 2)
        about = {"sampling": source.sampling, "dataset": source.made_by}
        member = SimpleNamespace(path="x", representation=representation, about=about)
        bank = SimpleNamespace(input_config=lambda step: None)
        reader = Reader(bank, [member], decode if representation == "video" else None)
        found = reader(2, world.x0[LABEL_UNSAFE][3:5, 2].float())
        assert found.dtype == torch.float16 and torch.equal(found, wanted), representation
        finer = torch.randn(2, *SHAPE)  # rounded as a recording would, before anything else
        assert torch.equal(reader(2, finer), reader(2, finer.half().float()))
    with pytest.raises(InputError, match="decode="):
        Reader(bank, [member])
    with pytest.raises(InputError, match="mixed"):
        Reader(bank, [member, SimpleNamespace(path="y", representation="latent", about={})])


def test_detectors_stay_in_memory_if_they_are_small(world):
    guard = Guard(world.grid, 0.6, 3, "cpu")
    assert sorted(guard.bank._loaded) == [0, 1, 2]
    bank = load_bank(world.grid)
    bank.preload(range(3), limit=1000)
    assert sorted(bank._loaded) == [2]
