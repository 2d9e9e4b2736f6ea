"""Recordings of any pipeline: they go on where they stopped, and hold whole samplings only."""

import math

import diffusers
import pytest
import torch

from benchmarks.common.pipeline_world import NORMAL, UNSAFE
from lvd import record
from lvd.errors import InputError
from lvd.x0.file import open_x0_file
from lvd.x0.layouts import FramesFirst, Layout
from tests.worlds.pipeline_world import run, tiny_of


def test_a_layout_of_ones_own(tmp_path):
    """As in docs/pipelines.md; what is recorded is what the known layout gives."""

    class Tokens(Layout):
        axes = "B(FHW)C"

        def unpack(self, x):
            return x.unflatten(1, (3, 2, 3)).movedim(-1, 1)

    tiny = tiny_of("LTXPipeline")
    for name, layout in (("own", Tokens()), ("known", None)):
        with (
            record(tiny.pipe, tmp_path / name / "pred_x0.pth", 1, layout=layout) as recording,
            recording.row(0),
        ):
            run(tiny, [UNSAFE])
    own, known = (open_x0_file(tmp_path / name / "pred_x0.pth").tensor for name in ("own", "known"))
    assert torch.equal(own, known) and own.any()


def test_a_sampling_outside_of_a_row_is_refused(tmp_path):
    """It would be recorded nowhere: without a row, in one not entered, and between two."""
    tiny = tiny_of("AnimateDiffPipeline")
    kind, calls = type(tiny.pipe.scheduler), []
    hook = tiny.pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(InputError, match="none.pth: a sampling outside of .with recording.row"):
        with record(tiny.pipe, tmp_path / "none.pth", 1):
            run(tiny, [UNSAFE])
    hook.remove()
    assert not calls  # before the model runs
    with (
        pytest.raises(InputError, match="a sampling outside"),
        record(tiny.pipe, tmp_path / "none.pth", 1) as recording,
    ):
        recording.row(0)
        run(tiny, [UNSAFE])
    assert type(tiny.pipe.scheduler) is kind and not (tmp_path / "none.pth").exists()
    with (
        record(tiny.pipe, tmp_path / "a.pth", 2) as first,
        record(tiny.pipe, tmp_path / "b.pth", 1) as second,
    ):
        with first.row(0):
            run(tiny, [UNSAFE])
        with second.row(0):
            run(tiny, [NORMAL])
        with pytest.raises(InputError, match="a sampling outside"):
            run(tiny, [NORMAL])
        with first.row(1):
            run(tiny, [UNSAFE])
    assert type(tiny.pipe.scheduler) is kind and run(tiny, [NORMAL]).any()
    assert open_x0_file(tmp_path / "a.pth").rows == [0, 1] and open_x0_file(
        tmp_path / "b.pth"
    ).rows == [0]


def test_recording_goes_on_where_it_stopped_and_refuses_what_does_not_belong(tmp_path):
    tiny, path = tiny_of("WanPipeline"), tmp_path / "wan" / "pred_x0.pth"

    def recorded(rows, kinds=None, **changes):
        with record(tiny.pipe, path, 3, about={"prompts": "three"}, **changes) as recording:
            with recording.rows(rows, [{"prompt": f"number {row}", "seed": 0} for row in rows]):
                tiny.pipe(**tiny.inputs(kinds or [UNSAFE] * len(rows), first=rows[0]))
            return recording.whole

    with pytest.raises(InputError, match="2 rows named, the pipeline makes 1 video"):
        recorded([0, 1], kinds=[UNSAFE])
    with pytest.raises(InputError, match="row 3 is outside the 3 videos"):
        recorded([2, 3])
    with (
        record(tiny.pipe, path, 3) as recording,
        pytest.raises(InputError, match=r"facts of 1 video\(s\) for 2"),
    ):
        with recording.rows([0, 1], [{}]):
            pass
    assert not path.exists()
    assert recorded([0, 1]) == {0, 1}
    assert recorded([2]) == {0, 1, 2}
    found = open_x0_file(path)
    assert found.tensor.shape == (3, 3, *tiny.shape) and found.tensor.dtype == torch.float16
    assert (
        found.meta["scheduler"]["class"] == "UniPCMultistepScheduler"
        and found.meta["prompts"] == "three"
    )
    levels = found.info[2].pop("levels")  # of flows, whose share of noise is their timestep
    assert levels[1:] == pytest.approx([2 * math.log(0.143 / 0.857), 2 * math.log(0.4 / 0.6)], 0.01)
    assert found.info[2] == {"prompt": "number 2", "seed": 0, "timesteps": [999, 857, 600]}
    assert (found.tensor[0] != found.tensor[1]).any() and found.tensor[2].any()
    for changes, words in (
        ({"dtype": "float32"}, "dtype"),
        ({"about": {"prompts": "others"}}, "meta.prompts"),
        ({"videos": 4}, "has 3 rows, now videos=4; to add rows"),
        ({"layout": FramesFirst()}, "meta.layout"),
        ({"dtype": "double"}, "'double'"),
    ):
        with pytest.raises(InputError, match=words):  # before anything is sampled
            record(tiny.pipe, path, **{"videos": 3, "about": {"prompts": "three"}, **changes})
    with pytest.raises(InputError, match="meta.pipeline"):
        record(tiny_of("HunyuanVideoPipeline").pipe, path, 3, about={"prompts": "three"})


def test_an_interrupted_or_failed_call_is_not_recorded(tmp_path):
    tiny = tiny_of("WanPipeline")

    def stop(pipe, step, timestep, kwargs):
        pipe._interrupt = step == 1
        return {}

    def fail(pipe, step, timestep, kwargs):
        raise RuntimeError("as it may be")

    for callback, error, words in (
        (stop, InputError, "2 of 3 denoising steps"),
        (fail, RuntimeError, "as it may be"),
    ):
        with record(tiny.pipe, tmp_path / "pred_x0.pth", 1) as recording:
            with pytest.raises(error, match=words), recording.row(0):
                tiny.pipe(**tiny.inputs([UNSAFE], callback_on_step_end=callback))
            with pytest.raises(InputError, match="0 of 0 denoising steps"), recording.row(0):
                pass
        assert not recording.whole and not (tmp_path / "pred_x0.pth").exists()
    assert type(tiny.pipe.scheduler).__name__ == "UniPCMultistepScheduler" and "step" not in vars(
        tiny.pipe.scheduler
    )


# ---- going on: prompts and seeds that are there already are compared

VIDEOS = [{"prompt": f"number {row}", "seed": row} for row in range(3)]


def test_rows_are_compared_with_the_list_of_videos(tmp_path):
    """A run that is stopped goes on with the same list alone; another one samples nothing."""
    tiny, path = tiny_of("AnimateDiffPipeline"), tmp_path / "pred_x0.pth"
    with record(tiny.pipe, path, VIDEOS) as recording:
        assert recording.missing == [0, 1, 2] and recording.videos == 3
        with recording.row(1) as video:
            assert video == VIDEOS[1]
            run(tiny, [UNSAFE])
        assert recording.missing == [0, 2]
    before = path.read_bytes(), path.with_suffix(".json").read_bytes()
    others = {
        "row 1 is recorded with prompt='number 1', now it is 'unsafe'": {"prompt": "unsafe"},
        "row 1 is recorded with seed=1, now it is 7": {"seed": 7},
        "row 1 is recorded with guidance=None, now it is 3.0": {"guidance": 3.0},
    }
    for words, change in others.items():
        with pytest.raises(InputError, match=words):
            record(tiny.pipe, path, [VIDEOS[0], {**VIDEOS[1], **change}, VIDEOS[2]])
    with pytest.raises(InputError, match="now it is None"):
        record(tiny.pipe, path, [{"prompt": f"number {row}"} for row in range(3)])
    with pytest.raises(InputError, match="has 3 rows, now there are 2 videos; give all"):
        record(tiny.pipe, path, VIDEOS[:2])
    assert before == (path.read_bytes(), path.with_suffix(".json").read_bytes())
    with record(tiny.pipe, path, VIDEOS) as recording:
        with recording.rows(recording.missing) as videos:
            assert videos == [VIDEOS[0], VIDEOS[2]]
            run(tiny, [UNSAFE, UNSAFE])
    assert [open_x0_file(path).info[row]["seed"] for row in range(3)] == [0, 1, 2]


def test_a_list_that_goes_on_adds_rows(tmp_path):
    """The file is that of one recording of the whole list, and the old rows are not sampled."""
    tiny, path, at_once = tiny_of("AnimateDiffPipeline"), tmp_path / "a.pth", tmp_path / "b.pth"

    def recorded(path, videos):
        with record(tiny.pipe, path, videos) as recording:
            missing = recording.missing
            for row in missing:
                with recording.row(row):
                    tiny.pipe(**tiny.inputs([UNSAFE], first=row))
        return missing

    assert recorded(path, VIDEOS[:2]) == [0, 1]
    before = open_x0_file(path).fingerprint
    with pytest.raises(InputError, match="row 1 is recorded with seed=1, now it is 9"):
        record(tiny.pipe, path, [VIDEOS[0], {**VIDEOS[1], "seed": 9}, VIDEOS[2]])
    assert recorded(path, VIDEOS) == [2] and recorded(at_once, VIDEOS) == [0, 1, 2]
    assert path.read_bytes() == at_once.read_bytes()
    grown, whole = open_x0_file(path), open_x0_file(at_once)
    assert grown.info == whole.info and grown.fingerprints == [before, whole.fingerprint]


def test_a_row_has_one_prompt(tmp_path):
    """Named in the list, in the block of its row, and in the sidecar."""
    tiny, path = tiny_of("AnimateDiffPipeline"), tmp_path / "pred_x0.pth"
    with record(tiny.pipe, path, 2) as recording, recording.row(0, prompt="a", seed=0):
        run(tiny, [UNSAFE])
    with pytest.warns(UserWarning, match="1 row recorded before, .* give videos="):
        recording = record(tiny.pipe, path, 2)
    with recording, pytest.raises(InputError, match="row 0 is recorded with prompt='a', now it is"):
        with recording.row(0, prompt="b", seed=0):
            run(tiny, [UNSAFE])
    with record(tiny.pipe, tmp_path / "b.pth", VIDEOS) as recording:
        with pytest.raises(InputError, match="row 2 is listed with prompt='number 2', now it is"):
            recording.row(2, prompt="b", seed=2).__enter__()


@pytest.mark.parametrize(
    "videos", [0, -1, True, None, "3", [], ["a"], [{"seed": {1}}], [{"seed": float("nan")}], 2.0]
)
def test_what_is_no_list_of_videos_is_refused(tmp_path, videos):
    with pytest.raises(InputError, match=r"videos(=|\[0\])") as error:
        record(tiny_of("AnimateDiffPipeline").pipe, tmp_path / "pred_x0.pth", videos)
    assert len(str(error.value)) < 300


# ---- another scheduler


def other_scheduler(pipe, kind="DDIMScheduler", **changes):
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **changes)
    pipe.scheduler.set_timesteps(3)


@pytest.fixture
def tiny():
    """The tiny AnimateDiff, which has its scheduler back afterwards."""
    tiny = tiny_of("AnimateDiffPipeline")
    scheduler = tiny.pipe.scheduler
    yield tiny
    tiny.pipe.scheduler = scheduler
    assert type(scheduler) is diffusers.DDIMScheduler and "step" not in vars(scheduler)


@pytest.mark.parametrize(
    "kind, changes, words",
    [
        ("EulerDiscreteScheduler", {}, "scheduler class 'DDIMScheduler', now it is 'Euler"),
        ("DDIMScheduler", {"beta_end": 0.5}, "scheduler beta_end 0.02, now it is 0.5"),
    ],
)
def test_another_scheduler_between_two_rows_is_refused(tmp_path, tiny, kind, changes, words):
    """The sidecar says one for all rows; one of the same settings is as good."""
    ran = []
    with record(tiny.pipe, tmp_path / "pred_x0.pth", 3) as recording:
        with recording.row(0):
            run(tiny, [UNSAFE])
        other_scheduler(tiny.pipe)
        with recording.row(1):
            run(tiny, [UNSAFE])
        other_scheduler(tiny.pipe, kind, **changes)
        hook = tiny.pipe.unet.register_forward_pre_hook(lambda *_: ran.append(1))
        with pytest.raises(InputError, match=words), recording.row(2):
            run(tiny, [UNSAFE])
        with pytest.raises(InputError, match="a sampling outside"):
            run(tiny, [UNSAFE])
        hook.remove()
        assert recording.whole == {0, 1} and not ran
    assert open_x0_file(tmp_path / "pred_x0.pth").rows == [0, 1]


def test_another_scheduler_inside_of_a_row_is_refused(tmp_path, tiny):
    def replace(pipe, step, timestep, kwargs):
        if step == when:
            other_scheduler(pipe)
        return {}

    first = tiny.pipe.scheduler
    for when in (0, 1, 2, None):  # None: before the call
        with record(tiny.pipe, tmp_path / "pred_x0.pth", 1) as recording:
            with pytest.raises(InputError, match="replaced inside of a row"), recording.row(0):
                if when is None:
                    other_scheduler(tiny.pipe)
                run(tiny, [UNSAFE], callback_on_step_end=replace)
            assert not recording.whole
        tiny.pipe.scheduler = first
    assert not (tmp_path / "pred_x0.pth").exists()


def test_after_its_scheduler_was_replaced_a_sampling_outside_of_a_row_is_still_refused(
    tmp_path, tiny
):
    with record(tiny.pipe, tmp_path / "pred_x0.pth", 1):
        other_scheduler(tiny.pipe, "EulerDiscreteScheduler")
        with pytest.raises(InputError, match="a sampling outside"):
            run(tiny, [UNSAFE])
    other_scheduler(tiny.pipe)
    assert run(tiny, [UNSAFE]).any()
