"""From a tiny pipeline to detectors that guard it, by the steps that a user takes: record, build
the dataset, train."""

from types import SimpleNamespace

import torch

import build_x0
import gen_eval_set
import train_mae
from lvd import record
from lvd.utils.files import save_yaml
from lvd.x0.file import open_x0_file

UNSAFE, NORMAL = 1, -1
VIDEOS, STEPS, AT_ONCE = 16, 3, 8


def make_world(tiny, folder):
    """Record VIDEOS unsafe and as many normal videos, build the dataset, train one nano detector
    for each step.

    Returns paths: detectors, unsafe, normal (the recordings).
    """
    recordings = {
        kind: folder / name / "pred_x0.pth"
        for name, kind in (("unsafe", UNSAFE), ("normal", NORMAL))
    }
    for kind, path in recordings.items():
        torch.manual_seed(0)  # an image's latents may be drawn from it
        with record(tiny.pipe, path, VIDEOS) as recording:
            for start in range(0, VIDEOS, AT_ONCE):
                with recording.rows(list(range(start, start + AT_ONCE))):
                    tiny.pipe(**tiny.inputs([kind] * AT_ONCE, first=start, steps=STEPS))
    config, labels, evaluation = folder / "build_x0.yaml", folder / "label.csv", folder / "eval.pth"
    labels.write_text("\n".join(["unsafe", *map(str, range(VIDEOS))]) + "\n")
    save_yaml(
        {
            "pred_x0": str(recordings[UNSAFE]),
            "normal_pred_x0": str(recordings[NORMAL]),
            "label_file_dir": str(labels),
            "out_dir": str(folder / "data"),
        },
        config,
    )
    done = [
        gen_eval_set.main(["--config", str(config), "--save_path", str(evaluation)]),
        build_x0.main(["--config", str(config), "--gpu_num", "-1"]),
        train_mae.main(
            [
                "--data_dir",
                str(folder / "data"),
                "--eval_dir",
                str(evaluation),
                "--save_dir",
                str(folder / "detectors"),
                "--size",
                "nano",
                "--epoch",
                "40",
                "--workers",
                "1",
                "--gpu_num",
                "-1",
            ]
        ),
    ]
    assert done == [0, 0, 0]
    return SimpleNamespace(
        detectors=folder / "detectors",
        unsafe=open_x0_file(recordings[UNSAFE]),
        normal=open_x0_file(recordings[NORMAL]),
    )
