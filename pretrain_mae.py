"""Pre-train the detectors' encoder without labels, on the recorded x0 of all steps:
{save_dir}/pretrained.pth.

VideoMAE's masked reconstruction. Rows held out in eval.pth take no part; with --recordings all
other recorded rows do, whether they are labelled or not, and no label file is needed. train_mae.py
--init pretrained.pth starts from it, for the same --size and representation. A stopped run goes on
from its last checkpoint (one a minute).
"""

import sys

from lvd.training.flags import MAGICTIME, add_common_flags
from lvd.training.given import need_effect
from lvd.training.pretrain import PretrainTask
from lvd.training.recipes import read_settings
from lvd.training.resumable import ResumableRun
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.processes import need_one_process, pick_device
from lvd.utils.progress import progress
from train_mae import open_job


def build_parser():
    parser = Parser(
        __doc__,
        "python pretrain_mae.py --data_dir MagicTime/train_detector_data --eval_dir "
        "MagicTime/eval.pth --size tiny --save_dir MagicTime/pretrained",
    )
    add_common_flags(parser, MAGICTIME / "pretrained")
    parser.add_argument(
        "--mask", type=float, help="share of the patches that are hidden (default: 0.75)"
    )
    return parser


def work(args):
    need_one_process("pretrain_mae.py")
    settings = read_settings(args.config, args, "pretrain")
    need_effect(args, settings, "pretrain")
    job = open_job(args, settings, pick_device(args.gpu_num), labelled=False)
    run = ResumableRun(job, PretrainTask(job))
    bar = progress(run, "pre-training", unit="batch", total=run.total, initial=run.done)
    for loss in bar:
        bar.set_postfix_str(f"loss {loss:.3f}")
    error = run.curve[-1]["train_loss"]
    summary(
        "encoder pre-trained",
        {
            "size": settings.size,
            "representation": job.source.representation,
            "clips": f"{len(run.task.rows.videos)} videos x {len(job.steps)} steps, none held out",
            "reconstruction error": f"{error:.3f} (mean square, patches of unit variance)",
        },
        run.written,
    )


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
