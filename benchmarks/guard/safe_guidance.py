"""Safe Latent Diffusion and the guard, alone and together, on unsafe prompts of the tiny world (10
minutes).

Each strength samples the same prompts and seeds, against "none"; the guard runs dry beside it. A
video counts as unsafe when the detectors of the last step, which see the finished latents, say so.
Figures are shares of the videos. The detectors learned from videos without safe guidance, and from
other prompts than the reworded ones that are sampled here.

Needs bash reproduce.sh, or a shared detector. Results: safe_guidance.csv and .txt.
"""

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.common.flags import (
    MAGICTIME,
    add_gpu,
    add_model_dir,
    add_rule,
    add_sampling_config,
    chosen,
    need_positive,
)
from benchmarks.common.needs import REPRODUCE, need_path, shared_detector
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.processes import pick_device
from lvd.voting import says_unsafe, step_vote
from lvd.x0.file import open_x0_file

STRENGTHS = ("none", "weak", "medium", "strong", "max")
CONCEPT = "warped, strobing, striped, exploding, under a banner"
RESULT_FILE = "safe_guidance.csv"


def build_parser():
    parser = Parser(
        __doc__, "python benchmarks/guard/safe_guidance.py --model_dir MagicTime/shared --videos 20"
    )
    add_sampling_config(parser)
    add_model_dir(parser)
    parser.add_argument(
        "--file_path",
        default="ckpts/Tiny/prompts/reworded.txt",
        help="unsafe prompts, one a line (default: Tiny's reworded ones)",
    )
    parser.add_argument("--concept", default=CONCEPT, help=f"safety_concept (default: '{CONCEPT}')")
    parser.add_argument(
        "--strengths", default=",".join(STRENGTHS), help=f"(default: {','.join(STRENGTHS)})"
    )
    parser.add_argument(
        "--videos", type=int, default=20, help="the first so many prompts (default: 20)"
    )
    add_rule(parser)
    add_gpu(parser)
    add_result_flags(parser, RESULT_FILE)
    return parser


class Strengths:
    """Samples at each strength with one model and one guard.

    Args:
        args: of this script.
    """

    def __init__(self, args):
        from MagicTime.utils.guarded import Guarding
        from MagicTime.utils.run import load_model
        from MagicTime.utils.sampling_plan import weight_paths

        self.args = args
        self.device = pick_device(args.gpu_num)
        config = self._config("none")
        rule = args.lambda_, args.eta
        self.guarding = Guarding(
            args.model_dir, *rule, self.device, dry_run=True, allow_unknown=True
        )
        self.bank = self.guarding.guard.bank
        self.last = config.settings.steps - 1
        if self.last not in self.bank.steps:
            raise InputError(
                f"--model_dir {args.model_dir}: no detectors of the last step, {self.last}"
            )
        self.model = load_model(config, weight_paths(config), self.device, tell=False)
        self.plain = None  # finished latents of the first strength

    def _config(self, strength):
        from MagicTime.utils.config import read_config

        flags = {"file_path": self.args.file_path, "save_predx_0": True}
        if strength != "none":
            flags |= {"safe_guidance": strength, "safety_concept": self.args.concept}
        return read_config(self.args.config, flags)

    def figures(self, strength, folder):
        """{quantity: share of the videos} of one strength."""
        from MagicTime.utils.prompts import read_source
        from MagicTime.utils.run import Run

        config = self._config(strength)
        prompts = read_source(config.settings, config.path)[: self.args.videos]
        run = Run(config, prompts, folder, self.device, model=self.model, guarding=self.guarding)
        run.load()
        run.sample()
        verdicts = run.verdicts.read()
        stopped = [verdicts[row]["verdict"] != "safe" for row in range(len(prompts))]
        x0 = open_x0_file(folder / "pred_x0.pth").tensor[:, -1].float()
        if self.plain is None:
            self.plain = x0
        unsafe = self._finished(x0)
        passed = [is_unsafe and not stop for is_unsafe, stop in zip(unsafe, stopped)]
        return {
            "unsafe": sum(unsafe) / len(unsafe),
            "guard stops": sum(stopped) / len(stopped),
            "unsafe and not stopped": sum(passed) / len(passed),
            "change of the latents": float((x0 - self.plain).std()),
        }

    def _finished(self, latents):
        """[bool] of latents [N, C, F, h, w]: does the last step's vote say unsafe?"""
        clips = self.guarding.guard.reader(self.last, latents)
        scores = self.bank.score(self.last, clips).tolist()
        thresholds = self.bank.thresholds(self.last)
        return [bool(step_vote(map(says_unsafe, row, thresholds))) for row in scores]


def work(args):
    strengths = chosen(args.strengths, STRENGTHS, "--strengths")
    need_positive(args, "videos")
    is_grid = args.model_dir == MAGICTIME / "detectors"
    maker = REPRODUCE if is_grid else shared_detector(args.model_dir)
    need_path("--model_dir", args.model_dir, maker)
    sampler = Strengths(args)
    report = Report("Safe Latent Diffusion and the guard", results_path(args, RESULT_FILE))
    report.facts["safety_concept"] = args.concept
    report.facts["detectors"] = sampler.bank.about["kind"]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        rows = [(name, sampler.figures(name, Path(folder) / name)) for name in strengths]
    report.add(
        "strengths",
        f"of {args.videos} unsafe prompts: shares whose finished video the last step's detectors "
        f"call unsafe, that the guard stops (lambda {args.lambda_}, eta {args.eta}), and that "
        "are unsafe and pass it",
        rows,
    )
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
