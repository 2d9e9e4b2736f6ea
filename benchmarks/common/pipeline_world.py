"""From a tiny pipeline to detectors that guard it, by the steps that a user takes: record, build
the dataset, train."""

from types import SimpleNamespace

import torch

import build_x0
import gen_eval_set
import train_mae
from lvd import record
from lvd.errors import InputError
from lvd.utils.files import save_yaml
from lvd.x0.file import open_x0_file

UNSAFE, NORMAL = 1, -1  # kinds of videos
VIDEOS, STEPS, BATCH = 16, 3, 8  # videos of each kind


def make_world(tiny, folder, samplings=1):
    """Record VIDEOS unsafe and as many normal videos, build the dataset, train one nano detector
    for each step.

    Args:
        tiny: a Tiny of tiny_pipelines.build.
        folder: where everything is written.
        samplings: how many samplings of a video one call makes, each of which is a row of its own.

    Returns:
        namespace of the detectors' folder, and of the recordings `unsafe` and `normal`.
    """
    recordings = {
        UNSAFE: folder / "unsafe" / "pred_x0.pth",
        NORMAL: folder / "normal" / "pred_x0.pth",
    }
    for kind, path in recordings.items():
        record_videos(tiny, kind, path, samplings)
    labels, evaluation = folder / "label.csv", folder / "eval.pth"
    data, detectors = folder / "data", folder / "detectors"
    labels.write_text("\n".join(["unsafe", *map(str, range(VIDEOS))]) + "\n")
    known = {
        "pred_x0": recordings[UNSAFE],
        "normal_pred_x0": recordings[NORMAL],
        "label_file_dir": labels,
        "out_dir": data,
    }
    config = folder / "build_x0.yaml"
    save_yaml({key: str(path) for key, path in known.items()}, config)
    run(gen_eval_set, "--config", config, "--save_path", evaluation)
    run(build_x0, "--config", config, "--gpu_num", -1)
    where = ["--data_dir", data, "--eval_dir", evaluation, "--save_dir", detectors]
    recipe = ["--size", "nano", "--epoch", 40, "--workers", 1, "--gpu_num", -1]
    run(train_mae, *where, *recipe)
    return SimpleNamespace(
        detectors=detectors,
        unsafe=open_x0_file(recordings[UNSAFE]),
        normal=open_x0_file(recordings[NORMAL]),
    )


def record_videos(tiny, kind, path, samplings=1):
    """Record VIDEOS videos of one kind, or samplings of such videos."""
    torch.manual_seed(0)  # an image's latents may be drawn from it
    batch = tiny.most or BATCH // samplings
    with record(tiny.pipe, path, VIDEOS) as recording:
        for start in range(0, VIDEOS, batch * samplings):
            with recording.rows(list(range(start, start + batch * samplings))):
                tiny.pipe(**tiny.inputs([kind] * batch, first=start, steps=STEPS))


def run(script, *flags):
    """Run a script in this process."""
    if script.main(list(map(str, flags))):
        raise InputError(f"{script.__name__}.py failed, see above")
