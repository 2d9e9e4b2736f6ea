"""Safe Latent Diffusion and the guard, alone and together, on unsafe prompts of the tiny world.

Each strength samples the same prompts and seeds; the guard runs dry beside it. A video counts as
unsafe when the detectors of the last step, which see the finished latents, say so. The detectors
learned from videos without safe guidance, and from other prompts than the reworded ones that are
sampled here.
"""

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.config import ROOT
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
    parser.add_argument(
        "--config", default="sample_configs/Tiny.yaml", help="sampling YAML (default: Tiny)"
    )
    parser.add_argument(
        "--model_dir",
        type=Path,
        default=ROOT / "MagicTime" / "detectors",
        help="detectors of all steps",
    )
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
    parser.add_argument(
        "--lambda", dest="lambda_", default="0.6", metavar="L", help="(default: 0.6)"
    )
    parser.add_argument("--eta", type=int, default=5, help="(default: 5)")
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device; -1: CPU (default: 0)")
    add_result_flags(parser, RESULT_FILE)
    return parser


class Strengths:
    """Samples at each strength with one model and one guard."""

    def __init__(self, args):
        from MagicTime.utils.guarded import Guarding
        from MagicTime.utils.run import load_model, weight_paths

        self.args, self.device = args, pick_device(args.gpu_num)
        config = self._config("none")
        self.guarding = Guarding(
            args.model_dir, args.lambda_, args.eta, self.device, dry_run=True, allow_unknown=True
        )
        last = config.settings["steps"] - 1
        if last not in self.guarding.guard.bank.steps:
            raise InputError(f"--model_dir {args.model_dir}: no detectors of the last step, {last}")
        self.model, self.plain = (
            load_model(config, weight_paths(config), self.device, tell=False),
            None,
        )

    def _config(self, strength):
        from MagicTime.utils.config import read_config

        return read_config(
            self.args.config,
            {
                "file_path": self.args.file_path,
                "safe_guidance": strength,
                "safety_concept": self.args.concept,
                "save_predx_0": True,
            },
        )

    def figures(self, strength, folder):
        """{quantity: number} of one strength: shares of the videos."""
        from MagicTime.utils.prompts import read_source
        from MagicTime.utils.run import Run

        config = self._config(strength)
        prompts = read_source(config.settings, config.path)[: self.args.videos]
        run = Run(config, prompts, folder, self.device, model=self.model, guarding=self.guarding)
        run.load()
        run.sample()
        told, x0 = run.verdicts.read(), open_x0_file(folder / "pred_x0.pth").tensor[:, -1].float()
        self.plain = x0 if self.plain is None else self.plain
        unsafe = self._finished(x0)
        stopped = [told[row]["verdict"] != "safe" for row in range(len(prompts))]
        passed = [a and not b for a, b in zip(unsafe, stopped)]
        return {
            "unsafe": sum(unsafe) / len(unsafe),
            "guard stops": sum(stopped) / len(stopped),
            "unsafe and not stopped": sum(passed) / len(passed),
            "change of the latents": float((x0 - self.plain).std()),
        }

    def _finished(self, latents):
        """[bool]: does the last step's vote say unsafe?"""
        guard = self.guarding.guard
        last = guard.bank.steps[-1]
        thresholds, scores = (
            guard.bank.thresholds(last),
            guard.bank.score(last, guard.reader(last, latents)).tolist(),
        )
        return [bool(step_vote(map(says_unsafe, row, thresholds))) for row in scores]


def work(args):
    args.out = results_path(args, RESULT_FILE)
    strengths = args.strengths.split(",")
    if unknown := [name for name in strengths if name not in STRENGTHS]:
        raise InputError(f"--strengths {unknown[0]}: one of {', '.join(STRENGTHS)} is needed")
    if args.videos < 1:
        raise InputError(f"--videos {args.videos}: at least 1 is needed")
    sampler = Strengths(args)
    report = Report("Safe Latent Diffusion and the guard", args.out)
    report.facts |= {
        "safety_concept": args.concept,
        "detectors": sampler.guarding.guard.bank.about["kind"],
    }
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
