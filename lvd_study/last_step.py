"""Write the last step of recordings as recordings of their own: its predicted x0 is the finished
video.

A classifier of finished videos learns from their decoded frames, as a detector does. The folder
gets unsafe/ and normal/pred_x0.pth of one step, and recordings.yaml, which names them.
"""

import sys
from argparse import Namespace
from pathlib import Path

from lvd.data.config import read_data_config
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.files import save_yaml
from lvd.utils.progress import progress
from lvd.x0.file import create_x0_file, open_x0_file

NAME = "recordings.yaml"
RECORDINGS = {"unsafe": "pred_x0", "normal": "normal_pred_x0"}
BY_STEP = ("timesteps", "levels")  # what a row tells of each step


def build_parser():
    parser = Parser(__doc__, "python -m lvd_study.last_step --config build_x0.yaml --out DIR")
    parser.add_argument("--config", type=Path, required=True, help="recordings, as build_x0.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser


def work(args):
    needed = ("sample_config", "label_file_dir", *RECORDINGS.values())
    settings = read_data_config(args.config, Namespace(), required=needed)
    written = {key: args.out / kind / "pred_x0.pth" for kind, key in RECORDINGS.items()}
    counts = {key: cut(getattr(settings, key), path) for key, path in written.items()}
    content = {key: str(path.resolve()) for key, path in written.items()}
    content |= {"label_file_dir": str(settings.label_file_dir), "representation": "video"}
    model = settings.sample_config
    content["sample_config"] = str(model) if isinstance(model, Path) else model
    save_yaml(content, args.out / NAME)
    facts = {kind: f"{counts[key]} finished videos" for kind, key in RECORDINGS.items()}
    summary("last step of recordings", facts, [args.out / NAME, *written.values()])


def cut(path, out):
    """Write the last step of a recording; what is there already is not written again.

    Args:
        path: of the recording.
        out: of the new one.

    Returns:
        How many rows it has.
    """
    x0 = open_x0_file(path)
    last = x0.tensor.shape[1] - 1
    shape, dtype = tuple(x0.tensor.shape[2:]), x0.tensor.dtype
    meta = {**x0.meta, "steps_kept": [last], "of_recording": x0.fingerprint}
    with create_x0_file(out, len(x0.tensor), 1, shape, dtype, meta) as writer:
        missing = sorted(set(x0.rows) - writer.whole)
        for row in progress(missing, "last steps", unit="video"):
            info = dict(x0.info.get(row, {}))
            info |= {key: info[key][last:] for key in BY_STEP if info.get(key)}
            writer.write_row(row, x0.tensor[row, last:], info)
    return len(x0.rows)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
