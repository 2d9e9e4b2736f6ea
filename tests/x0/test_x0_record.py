"""Recordings of any pipeline: they go on where they stopped, and hold whole samplings only."""

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
    assert len(calls) == 1  # at the first step, not when all was paid for
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

    with pytest.raises(InputError, match=r"2 row\(s\) named, the pipeline makes 1"):
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
    assert found.info[2] == {"prompt": "number 2", "seed": 0, "timesteps": [999, 857, 600]}
    assert (found.tensor[0] != found.tensor[1]).any() and found.tensor[2].any()
    for changes, words in (
        ({"dtype": "float32"}, "dtype"),
        ({"about": {"prompts": "others"}}, "meta.prompts"),
        ({"videos": 4}, "shape"),
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
