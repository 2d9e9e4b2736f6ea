"""Put serve.py's service under load: requests a second, waiting times, steps saved.

Clients of this process ask a server of this process over HTTP, on this machine: normal and unsafe
prompts in turns, each with a seed of its own. Without the guard the same service hands out every
video; that is what its price is compared with.
"""

import http.client
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.common.flags import add_sampling_config
from benchmarks.common.results import add_result_flags, results_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command

RESULT_FILE = "serving.csv"
PROMPTS = ("ckpts/Tiny/prompts/reworded.txt", "ckpts/Tiny/prompts/reworded_normal.txt")
PATIENCE = 3600  # seconds for one answer


def build_parser():
    parser = Parser(__doc__, "python benchmarks/guard/serving.py --requests 48 --workers 1,2,4")
    add_sampling_config(parser)
    parser.add_argument(
        "--guard", default="ckpts/Tiny/guard", help="detectors or guard.yaml (default: Tiny's)"
    )
    parser.add_argument("--requests", type=int, default=48, help="for each case (default: 48)")
    parser.add_argument("--clients", type=int, default=8, help="that ask at once (default: 8)")
    parser.add_argument("--workers", default="1,2,4", help="cases (default: 1,2,4)")
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device; -1: CPU (default: 0)")
    add_result_flags(parser, RESULT_FILE)
    return parser


def work(args):
    from benchmarks.common.report import Report
    from lvd.utils.cli import parse_numbers
    from lvd.utils.progress import progress
    from MagicTime.utils import config as cfg
    from MagicTime.utils.prompts import read_prompts

    for flag in ("requests", "clients"):
        if not 1 <= getattr(args, flag) <= 10_000:
            raise InputError(f"--{flag} {getattr(args, flag)}: a number from 1 to 10000 is needed")
    workers = parse_numbers(args.workers, range(1, 65), "--workers")
    unsafe, normal = (read_prompts(cfg.find(path)) for path in PROMPTS)
    asked = [
        {"prompt": [unsafe, normal][k % 2][k // 2 % min(len(unsafe), len(normal))], "seed": k}
        for k in range(args.requests)
    ]
    report = Report("serve.py under load", results_path(args, RESULT_FILE))
    report.facts["requests"] = f"{args.requests} a case, half of unsafe prompts"
    report.facts["clients"] = args.clients
    cases = [(count, is_guarded) for count in workers for is_guarded in (False, True)]
    for count, is_guarded in progress(cases, "cases"):
        figures = measure(args, count, is_guarded, asked)
        name = f"{count} worker{'s' * (count > 1)}, {'guard' if is_guarded else 'no guard'}"
        note = f"over HTTP on this machine, {args.clients} clients; seconds from request to answer"
        report.add("load", note, [(name, figures)])
    report.say_where()


def measure(args, workers, is_guarded, asked):
    """Return the figures of one case: {quantity: number}."""
    from lvd.utils.processes import pick_device
    from lvd.utils.sockets import open_socket
    from lvd_server.log import AuditLog
    from lvd_server.magictime import MagicTimeBackend, read_sampling
    from lvd_server.server import Server
    from lvd_server.service import Service

    config = read_sampling(args.config, {})
    device = pick_device(args.gpu_num)
    kind = MagicTimeBackend if is_guarded else without_guard(MagicTimeBackend)
    backend = kind(config, args.guard, device, workers)
    with tempfile.TemporaryDirectory() as folder:
        log = AuditLog(Path(folder) / "verdicts.jsonl")
        service = Service(backend, log, workers, args.clients, PATIENCE)
        service.load(backend.read_guard())
        listening = open_socket("127.0.0.1", 0)
        port = listening.getsockname()[1]
        server = Server(service, workers + args.clients)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            put_under_load(port, asked[:2], 1)  # warms up
            began = time.perf_counter()
            seconds = put_under_load(port, asked, args.clients)
            wall = time.perf_counter() - began
        finally:
            server.should_exit = True
            thread.join()
            service.close()
        lines = [json.loads(line) for line in log.path.read_text().splitlines()][2:]
    return figures_of(seconds, wall, lines)


def without_guard(kind):
    """Return a class of backends whose videos all leave: for the comparison alone."""

    class Unguarded(kind):
        def make(self, guarding, request):
            guarding.dry_run = True  # every video is sampled to its end
            frames, result = super().make(guarding, request)
            return frames, replace(result, verdict="safe", steps_saved=0, categories=[])

    return Unguarded


def put_under_load(port, asked, clients):
    """Send the requests by so many clients; returns the seconds of each answer."""
    seconds, failed = [], []
    waiting = list(reversed(asked))
    lock = threading.Lock()

    def ask():
        while True:
            with lock:
                if not waiting or failed:
                    return
                fields = waiting.pop()
            began = time.perf_counter()
            status = post(port, fields)
            with lock:
                seconds.append(time.perf_counter() - began)
                if status not in (200, 400):
                    failed.append(status)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise InputError(f"the server answered with status {failed[0]}, see above")
    return seconds


def post(port, fields):
    """Ask for a video; returns the status when the whole answer is there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/videos", json.dumps(fields), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def figures_of(seconds, wall, lines):
    """Return {quantity: number} of one case.

    Args:
        seconds: [requests] from request to answer.
        wall: seconds of all of them together.
        lines: of the log.
    """
    import numpy as np

    steps_run = sum(line["steps_run"] for line in lines)
    steps_saved = sum(line["steps_saved"] for line in lines)
    return {
        "requests/s": len(seconds) / wall,
        "p50 s": float(np.quantile(seconds, 0.5)),
        "p95 s": float(np.quantile(seconds, 0.95)),
        "stopped": sum(line["verdict"] == "unsafe" for line in lines),
        "steps run": steps_run,
        "steps saved": steps_saved,
        "detectors s": sum(line["guard_seconds"] for line in lines),
    }


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
