"""What the guard costs and saves at full size, in floating-point operations: exact counts, no
weights, no GPU.

Counts matrix products and convolutions (two operations a multiply-add) of MagicTime at 16 frames of
512x512 pixels, on tensors without data: the guided UNet step, the VAE, detectors of every size and
representation. From these follows what a video costs that is stopped as soon as the vote is
decided, by (lambda, eta); with --data_dir, also for recorded votes.
"""

import sys
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.recording.cost import FULL_STEPS, LATENTS, SD15, TOKENS
from lvd.detectors.videomae import SIZES, scratch_config
from lvd.errors import InputError
from lvd.evaluation.vote_report import balanced, counts, load_results, stopping_steps, verdicts
from lvd.utils.cli import Parser, run_command
from lvd.voting import check_eta, decided, exact

TERA = 1e12
CATEGORIES = 5
SD15_VAE = dict(  # config.json of Stable Diffusion 1.5's VAE, as far as it is not the default
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    norm_num_groups=32,
)
CLIPS = {
    "video": (3, 16, 512, 512),
    "latent": LATENTS,
    "rgb": (3, *LATENTS[1:]),
}  # what a detector is given, [C, F, H, W]
# The columns of the saving tables: (representation, size, number of networks a step).
SHOWN = {
    "pixels, base x 5 (the paper's)": ("video", "base", CATEGORIES),
    "latents, base x 5": ("latent", "base", CATEGORIES),
    "latents, small x 5": ("latent", "small", CATEGORIES),
    "latents, small, shared": ("latent", "small", 1),
    "rgb, tiny, shared": ("rgb", "tiny", 1),
}
RESULT_FILE = "guard_flops.csv"


def build_parser():
    parser = Parser(__doc__, "python benchmarks/guard/flops.py --lambdas 0.6 --etas 3,5,20")
    parser.add_argument(
        "--lambdas", default="0.2,0.4,0.6,0.8,1.0", help="(default: 0.2,0.4,0.6,0.8,1.0)"
    )
    parser.add_argument("--etas", default="1,3,5,10,20,50", help="(default: 1,3,5,10,20,50)")
    parser.add_argument(
        "--data_dir", help="results.pth or its folder: also the mean cost for these recorded votes"
    )
    add_result_flags(parser, RESULT_FILE)
    return parser


# ---- exact counts


def flops(call, *args, **kwargs):
    """Floating-point operations of one call on tensors without data."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        call(*args, **kwargs)
    return counter.get_total_flops()


def parameters(model):
    return sum(weight.numel() for weight in model.parameters())


def count_sampler():
    """{piece: {"TFLOP", "million parameters"}} of a guided denoising step and of decoding a video."""
    from diffusers import AutoencoderKL

    from MagicTime.utils.weights.motion_unet import make_motion_unet

    channels, frames, height, width = LATENTS
    with torch.device("meta"):
        unet, vae = make_motion_unet(SD15).eval(), AutoencoderKL(**SD15_VAE).eval()
        text = torch.empty(2 * frames, TOKENS, SD15["cross_attention_dim"])
        step = flops(unet, torch.empty(2, *LATENTS), torch.empty(()), encoder_hidden_states=text)
        decoding = flops(vae.decode, torch.empty(frames, channels, height, width))
    return {
        "guided UNet step": {"TFLOP": step / TERA, "million parameters": parameters(unet) / 1e6},
        "VAE decode of 16 frames": {
            "TFLOP": decoding / TERA,
            "million parameters": parameters(vae) / 1e6,
        },
    }


def count_detectors():
    """{(representation, size, "own" or "shared"): {"TFLOP", "million parameters"}} of one pass over
    one clip.

    own: the detector of one category at one step; shared: the one network for all categories and
    steps.
    """
    from transformers import VideoMAEForVideoClassification

    from lvd.detectors.shared import SharedNet

    found = {}
    for representation, shape in tqdm(CLIPS.items(), "representations"):
        for size in SIZES:
            with torch.device("meta"):
                config = scratch_config(size, shape, representation)
                model = VideoMAEForVideoClassification(config).eval()
                shared = SharedNet(model, FULL_STEPS, CATEGORIES)
                clip = torch.empty(1, config.num_channels, config.num_frames, *config.image_size)
                passes = {
                    "own": (model, flops(model, clip.transpose(1, 2))),
                    "shared": (shared, flops(shared, clip, torch.zeros(1, dtype=torch.long))),
                }
            for kind, (net, operations) in passes.items():
                found[representation, size, kind] = {
                    "TFLOP": operations / TERA,
                    "million parameters": parameters(net) / 1e6,
                }
    return found


def reading(representation, pieces):
    """TFLOP to make a step's latents into what the detectors read."""
    if representation == "video":
        return pieces["VAE decode of 16 frames"]["TFLOP"]
    channels, frames, height, width = LATENTS
    return 2 * 3 * channels * frames * height * width / TERA if representation == "rgb" else 0.0


class Costs:
    """TFLOP of whole and of stopped videos. pieces, detectors: of the two counts above."""

    def __init__(self, pieces, detectors):
        self.pieces, self.detectors = pieces, detectors
        self.unet = pieces["guided UNet step"]["TFLOP"]
        self.full = FULL_STEPS * self.unet + pieces["VAE decode of 16 frames"]["TFLOP"]

    def guard(self, representation, size, networks):
        """TFLOP that guarding one step adds; networks: 1 shared one, or one per category."""
        one = self.detectors[representation, size, "shared" if networks == 1 else "own"]["TFLOP"]
        return reading(representation, self.pieces) + networks * one

    def stopped(self, steps, guard):
        """Of a video that is stopped after `steps` guarded ones, and never decoded."""
        return steps * (self.unet + guard)

    def passed(self, steps, guard):
        """Of a whole video whose first `steps` were guarded."""
        return self.full + steps * guard


# ---- when the vote is decided


def span(lambda_, eta, outcome):
    """(fewest, most) steps after which the vote can be decided for `outcome`."""
    vote = int(outcome == "unsafe")
    return next(n for n in range(eta + 1) if decided([vote] * n, lambda_, eta) == outcome), eta


def pairs(args):
    """[(lambda, eta)] to show; InputError for values that are none."""
    lambdas, found = [text.strip() for text in args.lambdas.split(",")], []
    for text in args.etas.split(","):
        if not text.strip().isdecimal():
            raise InputError(f"--etas {text}: whole numbers with commas between are needed")
        check_eta(int(text), FULL_STEPS)
        found += [(lambda_, int(text)) for lambda_ in lambdas]
    for lambda_ in lambdas:
        if not exact(lambda_):
            raise InputError(
                f"--lambdas {lambda_}: above 0 is needed, at 0 all videos are unsafe before the "
                "first step"
            )
    return sorted(found, key=lambda pair: (exact(pair[0]), pair[1]))


# ---- tables


def piece_rows(pieces, detectors):
    rows = list(pieces.items())
    for (representation, size, kind), figures in detectors.items():
        rows.append(
            (
                f"VideoMAE-{size} on "
                f"{'pixels' if representation == 'video' else representation}, {kind}",
                figures,
            )
        )
    return rows


def step_rows(costs):
    """What guarding adds to one denoising step."""
    rows = []
    for representation in CLIPS:
        for size in SIZES:
            for networks, name in ((CATEGORIES, "x 5"), (1, "shared")):
                kind = "shared" if networks == 1 else "own"
                weights = (
                    costs.detectors[representation, size, kind]["million parameters"] * 4 * networks
                )
                added = costs.guard(representation, size, networks)
                what = "pixels" if representation == "video" else representation
                rows.append(
                    (
                        f"{what}, {size} {name}",
                        {
                            "GFLOP": added * 1e3,
                            "percent of a step": added / costs.unet * 100,
                            "MB of a step's weights": weights,
                            "MB of all weights": weights * (FULL_STEPS if networks > 1 else 1),
                        },
                    )
                )
    return rows


def stopped_rows(costs, wanted, latest=False):
    """How many times less than a full, unguarded video an unsafe one costs when it is stopped."""
    rows = []
    for lambda_, eta in wanted:
        steps = span(lambda_, eta, "unsafe")[latest]
        figures = {name: costs.full / costs.stopped(steps, guard) for name, guard in shown(costs)}
        rows.append((f"lambda {lambda_}, eta {eta}", {"steps": steps, **figures}))
    return rows


def passed_rows(costs, wanted, latest=False):
    """Percent that a safe video costs more than without a guard."""
    rows = []
    for lambda_, eta in wanted:
        steps = span(lambda_, eta, "safe")[latest]
        figures = {
            name: (costs.passed(steps, guard) / costs.full - 1) * 100
            for name, guard in shown(costs)
        }
        rows.append((f"lambda {lambda_}, eta {eta}", {"steps": steps, **figures}))
    return rows


def shown(costs):
    return [(name, costs.guard(*what)) for name, what in SHOWN.items()]


def vote_rows(costs, wanted, videos, missed=False):
    """The same for recorded votes, [(label, votes)]: of the mean cost of the unsafe videos that are
    found; missed: of all unsafe videos, those that pass in full."""
    rows = []
    for lambda_, eta in (pair for pair in wanted if pair[1] <= len(videos[0][1])):
        figures = {
            **counts(*verdicts(videos, lambda_, eta)),
            "steps until stopped": stopping_steps(videos, lambda_, eta),
        }
        unsafe = [votes for label, votes in videos if label]
        stops = [stopping_steps([(1, votes)], lambda_, eta) for votes in unsafe]
        for name, guard in shown(costs):
            spent = [costs.stopped(stop, guard) for stop in stops if stop]
            if missed:
                spent += [
                    costs.passed(looked_at(votes, lambda_, eta), guard)
                    for votes, stop in zip(unsafe, stops, strict=True)
                    if not stop
                ]
            figures[name] = costs.full / (sum(spent) / len(spent)) if spent else None
        rows.append((f"lambda {lambda_}, eta {eta}", figures))
    return rows


def looked_at(votes, lambda_, eta):
    """Steps whose detectors run on a video that passes."""
    return next(n for n in range(eta + 1) if decided(votes[:n], lambda_, eta))


def work(args):
    args.out = results_path(args, RESULT_FILE)
    wanted = pairs(args)
    results = load_results(args.data_dir)[0] if args.data_dir else None
    pieces, detectors = count_sampler(), count_detectors()
    costs = Costs(pieces, detectors)
    report = Report(
        "Guarding at full size: floating-point operations, 16 frames of 512x512 pixels, 50 "
        "guided steps",
        args.out,
    )
    report.facts["full video, unguarded"] = f"{costs.full:.1f} TFLOP"
    report.add(
        "pieces",
        "exact counts of one pass; own: the detector of one category at one step",
        piece_rows(pieces, detectors),
    )
    report.add(
        "guarded step",
        "what reading predicted x0 adds to one guided UNet step, five categories",
        step_rows(costs),
    )
    report.add(
        "unsafe video",
        "times less than a full one, stopped when every step votes unsafe",
        stopped_rows(costs, wanted),
    )
    report.add(
        "unsafe video, latest",
        "the same, when the last of eta votes decides",
        stopped_rows(costs, wanted, latest=True),
    )
    report.add(
        "safe video",
        "percent more than without a guard, when no step votes unsafe; after these steps the "
        "detectors rest",
        passed_rows(costs, wanted),
    )
    report.add(
        "safe video, latest",
        "the same, when the last of eta votes decides",
        passed_rows(costs, wanted, latest=True),
    )
    if results:
        report.add(
            "recorded votes",
            f"accuracy of the votes in {Path(args.data_dir).name}, and how many times less than a "
            f"full video those cost that are found unsafe, at full size",
            vote_rows(costs, wanted, balanced(results)),
        )
        report.add(
            "recorded votes, all unsafe videos",
            "the same of all of them: those that are missed are made in full",
            vote_rows(costs, wanted, balanced(results), missed=True),
        )
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
