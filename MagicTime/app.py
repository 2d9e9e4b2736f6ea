"""A page on which you type a prompt and see what the guard sees while the video is sampled.

Without flags it shows the tiny world under the detectors that come with it. It listens to this
machine alone, asks no other machine for anything, and writes no file (docs/app.md). Ctrl-C ends it.
"""

import sys

from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.libraries import need_libraries

TINY, TINY_GUARD = "sample_configs/Tiny.yaml", "ckpts/Tiny/guard"
MOST_WAITING = 1_000
MOST_EXAMPLES = 6


def build_parser():
    parser = Parser(
        __doc__,
        "python MagicTime/app.py\n"
        "  python MagicTime/app.py --config sample_configs/RealisticVision.yaml --guard "
        "MagicTime/shared --dtype float16",
    )
    model = parser.add_argument_group("what makes the videos")
    model.add_argument("--config", help=f"sampling YAML (default: {TINY})")
    model.add_argument("--gpu_num", type=int, default=0, help="CUDA device; -1: CPU (default: 0)")
    model.add_argument("--dtype", help="float32, float16 or bfloat16 (overrides the YAML's)")
    _add_guard(parser)
    served = parser.add_argument_group("how it serves")
    served.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    served.add_argument(
        "--port", type=int, default=7860, help="0: a free one, which is printed (default: 7860)"
    )
    served.add_argument(
        "--queue", type=int, default=8, help="videos that may wait for their turn (default: 8)"
    )
    served.add_argument(
        "--dry-run", action="store_true", help="check everything but the weights, serve nothing"
    )
    parser.add_overrides()
    return parser


def _add_guard(parser):
    guard = parser.add_argument_group("the guard, as of inference_magictime.py")
    guard.add_argument(
        "--guard",
        metavar="DIR",
        help="folder of detectors, a shared.pth, or a guard.yaml (default for Tiny: the detectors "
        "that come with it)",
    )
    guard.add_argument(
        "--require_guard",
        "--require-guard",
        action="store_true",
        help="nobody can switch the guard off on the page",
    )
    guard.add_argument(
        "--rule", metavar="YAML", help="a rule.yaml of choose_rule.py (default: the one in DIR)"
    )
    guard.add_argument("--lambda", dest="lambda_", metavar="L", help="instead: the paper's vote")
    guard.add_argument("--eta", type=int, help="among the first ETA steps")
    guard.add_argument(
        "--operating_point", "--operating-point", help="how detectors are read (embed_model.py)"
    )
    guard.add_argument(
        "--guard-allow-unknown",
        action="store_true",
        help="accept detectors that do not say from what sampling they learned",
    )
    guard.add_argument(
        "--guard-preview",
        metavar="MATRIX",
        help="draw x0 by the rgb matrix of a file of fit_rgb.py (default: the VAE decodes small "
        "videos, the detectors' own matrix or Stable Diffusion's draws larger ones)",
    )


def work(args):
    _need_numbers(args)
    need_libraries(("gradio", "plotly"), "requirements-app.txt")
    # Imported here: with torch and gradio --help would take seconds.
    from lvd.utils.config import parse_overrides
    from lvd.utils.processes import pick_device
    from lvd.utils.sockets import address_of, open_socket
    from MagicTime.utils.app.door import is_this_machine
    from MagicTime.utils.app.server import quiet_gradio
    from MagicTime.utils.config import read_config
    from MagicTime.utils.one_video import OneVideo

    named = _guard_of(args)
    flags = {"save_predx_0": False, "dtype": args.dtype}
    config = read_config(args.config or TINY, flags, parse_overrides(args.overrides))
    device = pick_device(args.gpu_num)
    sampler = OneVideo(config, device)
    guarding = make_guarding(args, device)
    guarding.check(config, sampler.latent_shape(config.settings))
    facts = {
        "samples": f"MagicTime as in {config.path}, on {device}",
        "guard": f"{named}: {guarding.describe()}" + (", always on" if args.require_guard else ""),
        "videos": f"one at a time, {args.queue} more may wait",
    }
    if not is_this_machine(args.host):
        facts["risk"] = f"who reaches {args.host} can sample, there is no login (docs/app.md)"
    listening = open_socket(args.host, args.port)
    if args.dry_run:
        listening.close()
        summary("would serve", facts, [])
        return
    summary("loading the weights", facts, [])
    with listening, quiet_gradio():
        sampler.load()
        server, studio = make_served(args, sampler, guarding)
        print(f"open {address_of(listening)} in a browser; Ctrl-C ends it", flush=True)
        try:
            server.run([listening])
        finally:
            studio.close()
    print("ended", flush=True)


def make_served(args, sampler, guarding):
    """Return (uvicorn's Server, Studio) of the page; the sampler is loaded."""
    from MagicTime.utils.app.page import PASSED, STOPPED, make_page
    from MagicTime.utils.app.preview import DECODED, Previewer
    from MagicTime.utils.app.server import make_app, make_server
    from MagicTime.utils.app.studio import Studio
    from MagicTime.utils.app.watch import Watcher

    settings = sampler.config.settings
    is_small = args.guard_preview is None and max(settings.H, settings.W) <= DECODED
    rgb = None if is_small else guarding.rgb
    studio = Studio(sampler, guarding, args.queue, args.require_guard)
    watcher = Watcher(studio, Previewer(rgb, sampler.vae, sampler.device), args.queue)
    examples = {
        "**The guard stops these**, harmless stand-ins for unsafe videos:": STOPPED,
        "**These are fine:**": PASSED,
    }
    if args.config not in (None, TINY):
        prompts = settings.prompt if isinstance(settings.prompt, list) else [settings.prompt]
        examples = {"**Examples:**": prompts[:MOST_EXAMPLES]} if prompts else {}
    rule = guarding.guard.rule.describe()
    page = make_page(watcher, settings, rule, examples, args.require_guard)
    return make_server(make_app(page, args.host)), studio


def make_guarding(args, device):
    """Return the Guarding that the flags ask for. Only Tiny has one by default."""
    from MagicTime.utils.guarded import Guarding

    return Guarding(
        _guard_of(args),
        rule=args.rule,
        lambda_=args.lambda_,
        eta=args.eta,
        operating_point=args.operating_point,
        device=device,
        preview=args.guard_preview or "",
        allow_unknown=args.guard_allow_unknown,
    )


def _guard_of(args):
    if args.guard is not None:
        return args.guard
    if args.config in (None, TINY):
        return TINY_GUARD
    raise InputError(f"--config {args.config}: --guard is needed, the detectors of this model")


def _need_numbers(args):
    """InputError for a number out of its range."""
    limits = {"--port": (args.port, 0, 65_535), "--queue": (args.queue, 0, MOST_WAITING)}
    for flag, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise InputError(f"{flag} {value}: a number from {least} to {most} is needed")


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
