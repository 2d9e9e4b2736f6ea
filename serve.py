"""Serve a guarded video pipeline over HTTP: POST /v1/videos gives an mp4, or says why not.

Without flags it serves the tiny world under the detectors that come with it. Writes
{save_path}/verdicts.jsonl, one line for each request, and {save_path}/serve.yaml, the settings.
Words such as num_frames=49 set what a client of a --pipeline need not say; without one they change
the YAML.
There is no authentication: it listens to this machine alone unless --host says otherwise.
SIGTERM ends it in order, SIGHUP loads the guard again (docs/serving.md).
"""

import sys
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.libraries import need_libraries

TINY, TINY_GUARD = "sample_configs/Tiny.yaml", "ckpts/Tiny/guard"
LIBRARIES = ("fastapi", "uvicorn", "prometheus_client")
MOST_WORKERS, MOST_WAITING, LONGEST_TIMEOUT = 64, 10_000, 86_400


def build_parser():
    parser = Parser(__doc__, "python serve.py --port 8000 --workers 2")
    model = parser.add_argument_group("what makes the videos")
    model.add_argument("--config", help=f"sampling YAML of MagicTime (default: {TINY})")
    model.add_argument(
        "--pipeline",
        metavar="MODULE:FUNCTION",
        help="instead: a function without arguments that returns a diffusers video pipeline",
    )
    model.add_argument(
        "--layout",
        metavar="AXES",
        help="of that pipeline's latents, if lvd does not know its class",
    )
    model.add_argument(
        "--guard",
        metavar="DIR",
        help="folder of detectors, a shared.pth, or a guard.yaml with the policy (default for "
        "Tiny: the detectors that come with it)",
    )
    model.add_argument("--gpu_num", type=int, default=0, help="CUDA device; -1: CPU (default: 0)")
    served = parser.add_argument_group("how it serves")
    served.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    served.add_argument(
        "--port", type=int, default=8000, help="0: a free one, which is printed (default: 8000)"
    )
    served.add_argument(
        "--workers", type=int, default=1, help="videos sampled at once, by one set of weights"
    )
    served.add_argument(
        "--queue", type=int, default=16, help="requests that may wait besides (default: 16)"
    )
    served.add_argument(
        "--timeout", type=float, default=600, help="seconds for one answer (default: 600)"
    )
    served.add_argument(
        "--save-path",
        "--save_path",
        dest="save_path",
        default="MagicTime/outputs/serve",
        help="folder of the log (default: MagicTime/outputs/serve)",
    )
    served.add_argument(
        "--log_prompts",
        action="store_true",
        help="write prompts into the log, and not just their hashes",
    )
    served.add_argument(
        "--dry-run", action="store_true", help="check everything but the weights, serve nothing"
    )
    parser.add_overrides()
    return parser


def work(args):
    _need_numbers(args)
    need_libraries(LIBRARIES, "requirements-serve.txt")
    # Imported here: with torch and diffusers --help would take seconds.
    from lvd.utils.files import save_yaml
    from lvd.utils.sockets import address_of, open_socket
    from lvd_server.server import serve
    from lvd_server.service import Service, identity_of

    backend = make_backend(args)
    read = backend.read_guard()
    guard = read[0]
    facts = {
        "samples": backend.describe(),
        "guard": f"{_guard_of(args)} ({identity_of(guard)}): {guard.rule.describe()}",
        "calls": f"{args.workers} at once, {args.queue} more wait, {args.timeout:g} s for each",
    }
    listening = open_socket(args.host, args.port)
    if args.dry_run:
        listening.close()
        summary("would serve", facts, [])
        return
    folder = Path(args.save_path)
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(
        backend,
        open_log(folder),
        workers=args.workers,
        places=args.queue,
        timeout=args.timeout,
        log_prompts=args.log_prompts,
    )
    save_yaml(resolved(args, guard, identity_of(guard)), folder / "serve.yaml")
    summary("serving", facts, [folder / "serve.yaml"])
    print(f"  log: {folder / 'verdicts.jsonl'}")
    print(f"listening on {address_of(listening)}", flush=True)

    def load():
        service.load(read)
        print("ready", flush=True)

    serve(service, listening, load, args.workers + args.queue)
    print("ended", flush=True)


def _need_numbers(args):
    """InputError for a number out of its range."""
    limits = {
        "--port": (args.port, 0, 65_535),
        "--workers": (args.workers, 1, MOST_WORKERS),
        "--queue": (args.queue, 0, MOST_WAITING),
        "--timeout": (args.timeout, 1, LONGEST_TIMEOUT),
    }
    for flag, (value, least, most) in limits.items():
        if not least <= value <= most:  # True for NaN
            raise InputError(f"{flag} {value}: a number from {least} to {most} is needed")


def make_backend(args):
    """Return what makes the videos."""
    from lvd.utils.config import parse_overrides
    from lvd.utils.processes import pick_device

    guard = _guard_of(args)
    if args.pipeline is None:
        from lvd_server.magictime import MagicTimeBackend, read_sampling

        if args.layout is not None:
            raise InputError("--layout: belongs to --pipeline")
        config = read_sampling(args.config or TINY, parse_overrides(args.overrides))
        return MagicTimeBackend(config, guard, pick_device(args.gpu_num), args.workers)
    from lvd_server.pipelines import PipelineBackend

    if args.config is not None:
        raise InputError("--config: --pipeline is given, which needs no sampling YAML")
    given = parse_overrides(args.overrides)
    return PipelineBackend(args.pipeline, guard, pick_device(args.gpu_num), args.layout, given)


def _guard_of(args):
    """Return the path of the guard. Only Tiny has one by default."""
    if args.guard is not None:
        return args.guard
    if args.pipeline is None and args.config in (None, TINY):
        return TINY_GUARD
    flag = "--pipeline" if args.pipeline is not None else "--config"
    raise InputError(f"{flag}: --guard is needed, the detectors of this model (docs/your_model.md)")


def open_log(folder):
    """Return the AuditLog of a folder."""
    from lvd_server.log import AuditLog

    return AuditLog(folder / "verdicts.jsonl")


def resolved(args, guard, guard_id):
    """Return the settings of this server, for serve.yaml."""
    from lvd.utils.config import versions

    settings = {key: value for key, value in vars(args).items() if key != "dry_run"}
    settings["guard"] = _guard_of(args)
    if args.pipeline is None:
        settings["config"] = args.config or TINY
    settings["rule"] = guard.rule.describe()
    settings["operating_point"] = guard.operating_point
    settings["categories"] = guard.policy.as_dict()
    settings["guard_identity"] = guard_id
    return {**settings, "versions": versions()}


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
