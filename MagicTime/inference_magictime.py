"""Sample videos from prompts and record the predicted x0 of every denoising step.

Writes {save_path}/videos/0000.mp4 ..., pred_x0.pth [N, S, C, F, h, w] with pred_x0.json, and
config.yaml. The same command goes on where it was stopped. Paths in the YAML are looked up from the
current folder, MagicTime/ and the repository root; a relative save_path in the YAML lies under
MagicTime/, --save-path under the current folder. Prompts: --file_path, --run-csv, --run-json or
--human, else the YAML's file_path, else its prompt list. On several GPUs: accelerate launch
--multi_gpu --num_processes 4 MagicTime/inference_magictime.py ... (the same results).
"""

import argparse
import sys

from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary


def build_parser():
    parser = Parser(
        __doc__,
        "python MagicTime/inference_magictime.py --config sample_configs/Tiny.yaml --limit 8",
    )
    parser.add_argument("--config", required=True, help="sampling YAML")
    _add_sources(parser)
    parser.add_argument("--save-path", "--save_path", dest="save_path", help="output folder")
    parser.add_argument(
        "--seed", type=int, help="one seed instead of the YAML's; with seed_per_prompt, row 0's"
    )
    parser.add_argument(
        "--gpu_num",
        type=int,
        default=0,
        help="CUDA device; -1: CPU (default: 0, or each process its own)",
    )
    parser.add_argument("--limit", type=int, help="sample only the first LIMIT prompts now")
    parser.add_argument(
        "--filmstrips",
        type=int,
        default=0,
        metavar="N",
        help="also draw x0 at six steps beside the final clip, for the first N prompts",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything but the weights, say what would be made",
    )
    _add_hardware(parser)
    _add_safe_guidance(parser)
    _add_guard(parser)
    parser.add_overrides()
    return parser


def _add_sources(parser):
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--file_path", "--file-path", help="text file, one prompt a line")
    source.add_argument(
        "--run-csv",
        "--run_csv",
        metavar="FILE",
        help="CSV: columns name (the prompt) and videoid (the file name)",
    )
    source.add_argument(
        "--run-json", "--run_json", metavar="FILE", help="JSON list of {caption, video_id, sen_id}"
    )
    source.add_argument(
        "--human",
        action="store_true",
        help="ask for prompts, one video at a time, until an empty line",
    )


def _add_hardware(parser):
    hardware = parser.add_argument_group(
        "the hardware (each overrides the YAML's key of that name)"
    )
    hardware.add_argument("--batch_size", type=int, help="prompts sampled together")
    hardware.add_argument("--dtype", help="float32, float16 or bfloat16")
    hardware.add_argument(
        "--attention",
        help="kernel of scaled_dot_product_attention: auto, flash, efficient, cudnn or math",
    )
    for flag, text in (
        ("cpu_offload", "text encoder, UNet and VAE wait on the CPU for their turn on the GPU"),
        ("vae_slicing", "decode one frame at a time"),
        ("vae_tiling", "decode large frames in overlapping tiles"),
        ("compile", "torch.compile the UNet: minutes at the start, faster steps"),
    ):
        hardware.add_argument(
            f"--{flag}", action=argparse.BooleanOptionalAction, default=None, help=text
        )


def _add_safe_guidance(parser):
    safe = parser.add_argument_group(
        "Safe Latent Diffusion: guidance away from a concept (overrides the YAML's keys)"
    )
    safe.add_argument(
        "--safe_guidance", "--safe-guidance", help="how strongly: none, weak, medium, strong or max"
    )
    safe.add_argument(
        "--safety_concept", "--safety-concept", metavar="WORDS", help="what videos shall not show"
    )


def _add_guard(parser):
    """Flags of the guard. None stands for "not given": without --guard each of them is refused."""
    guard = parser.add_argument_group(
        "the guard: stop unsafe videos while they are sampled (docs/guard.md)"
    )
    guard.add_argument(
        "--guard",
        metavar="DIR",
        help="folder of detectors, or a shared.pth, made by train_mae.py; or a guard.yaml, which "
        "names detectors, rule and what to do about each category",
    )
    guard.add_argument(
        "--rule",
        metavar="YAML",
        help="when a video is unsafe: a rule.yaml of choose_rule.py (default: the one in DIR, if "
        "there is one)",
    )
    guard.add_argument(
        "--lambda",
        dest="lambda_",
        metavar="L",
        help="instead: the paper's vote, the share of unsafe votes (default: 0.6)",
    )
    guard.add_argument("--eta", type=int, help="among the first ETA steps (default: 5)")
    guard.add_argument(
        "--operating_point",
        "--operating-point",
        help="how detectors are read, as in embed_model.py (default: the rule's, else validation)",
    )
    guard.add_argument(
        "--guard-dry-run",
        action="store_true",
        default=None,
        help="stop nothing, say what would have been stopped",
    )
    guard.add_argument(
        "--guard-preview",
        nargs="?",
        const="",
        metavar="MATRIX",
        help="draw what the guard saw: small frames, by the rgb matrix of a file of fit_rgb.py "
        "(default: the detectors' own, else Stable Diffusion's)",
    )
    guard.add_argument(
        "--guard-allow-unknown",
        action="store_true",
        default=None,
        help="accept detectors that do not say from what sampling they learned",
    )


def work(args):
    # Imported here: with torch and diffusers --help would take seconds.
    from lvd.utils.config import flags_of, parse_overrides
    from lvd.utils.processes import processes
    from MagicTime.utils.config import SamplingSettings, read_config
    from MagicTime.utils.machines import need_same_run, need_shared_folders
    from MagicTime.utils.output_folder import output_folder
    from MagicTime.utils.prompts import read_source
    from MagicTime.utils.run import Run
    from MagicTime.utils.run_summary import planned_facts, sampled_facts, written_paths

    _need_at_least(args.limit, 1, "--limit")
    _need_at_least(args.filmstrips, 0, "--filmstrips")
    team = processes()
    with team.main_first():
        flags = flags_of(args, SamplingSettings)
        flags.pop("save_path", None)  # below the current folder; the YAML's is below MagicTime/
        config = read_config(args.config, flags, parse_overrides(args.overrides))
        _need_use(args, config)
        out = output_folder(config, args.save_path)
        if not args.human:
            prompts = read_source(config.settings, config.path, args.run_csv, args.run_json)
            device = team.device(args.gpu_num)
            run = Run(config, prompts, out, device, team, guarding=make_guarding(args, device))
    if args.human:
        talk(config, out, args, team)
        return
    need_same_run(run, args.limit)
    if args.dry_run:
        if team.is_main:
            summary("would sample", planned_facts(run.plan, team, args.limit), [])
        return
    need_shared_folders(run)
    run.load()
    made = run.sample(args.limit)
    if not team.is_main:
        return
    strips = run.filmstrips(args.filmstrips) if args.filmstrips else []
    summary("sampled", sampled_facts(run, made), [*written_paths(run.plan), *strips])


def _need_at_least(value, least, flag):
    if value is not None and value < least:
        raise InputError(f"{flag} {value}: too small")


def _need_use(args, config):
    """Refuse words of the command line that would change nothing."""
    settings = config.settings
    flags = {"--run-csv": args.run_csv, "--run-json": args.run_json, "--human": args.human}
    source = next((flag for flag, value in flags.items() if value), None)
    unused = ("prompt", "file_path") if source else ()
    if source is None and settings.file_path:
        source, unused = f"file_path {settings.file_path}", ("prompt",)
    for key in unused:
        if word := config.places.get(key):
            raise InputError(f"{word}: changes nothing, the prompts are those of {source}")
    if args.save_path and "save_path" in config.places:
        raise InputError(f"{config.places['save_path']}: --save-path is given, which wins")
    if args.filmstrips and not settings.save_predx_0:
        raise InputError("--filmstrips: shows recorded x0, save_predx_0 must be true")


def make_guarding(args, device):
    """Make the Guarding that the flags ask for, or None without --guard."""
    flags = {
        "--rule": args.rule,
        "--lambda": args.lambda_,
        "--eta": args.eta,
        "--operating_point": args.operating_point,
        "--guard-dry-run": args.guard_dry_run,
        "--guard-preview": args.guard_preview,
        "--guard-allow-unknown": args.guard_allow_unknown,
    }
    if args.guard is None:
        for flag, value in flags.items():
            if value is not None:
                raise InputError(f"{flag}: belongs to --guard, which names the detectors")
        return None
    from MagicTime.utils.guarded import Guarding

    return Guarding(
        args.guard,
        rule=args.rule,
        lambda_=args.lambda_,
        eta=args.eta,
        operating_point=args.operating_point,
        device=device,
        dry_run=bool(args.guard_dry_run),
        preview=args.guard_preview,
        allow_unknown=bool(args.guard_allow_unknown),
    )


def talk(config, out, args, team):
    """--human: each prompt is a run of its own in a numbered folder; the model is loaded once."""
    from MagicTime.utils.human import config_of, converse
    from MagicTime.utils.prompt import Prompt
    from MagicTime.utils.run import Run, load_model
    from MagicTime.utils.run_summary import guard_facts, written_paths
    from MagicTime.utils.sampling_plan import make_plan

    if team.count > 1 or args.dry_run or args.limit:
        raise InputError("--human: one process, without --dry-run and --limit, is needed")
    device = team.device(args.gpu_num)
    guarding = make_guarding(args, device)
    # Checked before the weights are loaded, with a prompt that is never sampled.
    first = make_plan(config_of(config, 0), [Prompt("-", "0000")], out / "next", device, guarding)
    model = load_model(config, first.weights, device)

    def sample_one(text, folder, number):
        prompts = [Prompt(text, "0000")]
        one = config_of(config, number)
        run = Run(one, prompts, folder, device, model=model, guarding=guarding)
        run.load()
        run.sample()
        for fact, told in guard_facts(run).items():
            print(f"  {fact}: {told}", flush=True)
        strips = run.filmstrips(1) if args.filmstrips else []
        return [*written_paths(run.plan), *strips]

    converse(model, out, sample_one)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
