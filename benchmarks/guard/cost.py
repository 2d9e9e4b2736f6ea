"""What the guard costs and saves, measured: on Tiny, with the grid of detectors and with the shared
one, all in one run.

A step: the sampler's time, and that of reading its x0. Videos: unsafe and normal prompts with and
without guard, in turns. Memory: what the detectors add. CPU seconds hardly feel what else the
machine does; seconds do. With --full: the same for a step at the size of Stable Diffusion 1.5, with
random weights: several steps on a GPU, one on a CPU.
"""

import gc
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.common.memory import status
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from benchmarks.recording.cost import FULL_STEPS, LATENTS, SD15, guided_steps, random_unet, spread
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.processes import pick_device

PROMPTS = {"unsafe": "ckpts/Tiny/prompts/unsafe.txt", "normal": "ckpts/Tiny/prompts/normal.txt"}
FULL = (
    ("small", 5),
    ("tiny", 5),
    ("nano", 5),
    ("small", 1),
    ("tiny", 1),
)  # latent detectors: size, how many read a step


def build_parser():
    parser = Parser(
        __doc__,
        "python benchmarks/guard/cost.py --grid MagicTime/detectors --shared MagicTime/shared",
    )
    parser.add_argument(
        "--config", default="sample_configs/Tiny.yaml", help="sampling YAML (default: Tiny)"
    )
    parser.add_argument("--grid", type=Path, help="folder of {group}/{step}.pth")
    parser.add_argument("--shared", type=Path, help="folder of shared.pth, or itself")
    parser.add_argument(
        "--lambda", dest="lambda_", default="0.6", metavar="L", help="(default: 0.6)"
    )
    parser.add_argument("--eta", type=int, default=5, help="(default: 5)")
    parser.add_argument("--videos", type=int, default=8, help="prompts of each kind (default: 8)")
    parser.add_argument("--batch_size", type=int, default=8, help="(default: 8)")
    parser.add_argument("--repeats", type=int, default=2, help="of every whole run (default: 2)")
    parser.add_argument(
        "--full", action="store_true", help="measure a step at full size instead of Tiny"
    )
    parser.add_argument(
        "--dtype", help="of the full-size UNet (default: float16 on a GPU, bfloat16 on a CPU)"
    )
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device; -1: CPU (default: 0)")
    add_result_flags(parser, "guard_cost.csv or guard_cost_full.csv")
    return parser


@dataclass
class Clock:
    """Seconds, and CPU seconds of this process, in a block; waits for a GPU."""

    device: torch.device

    def __enter__(self):
        self._wait()
        self._began, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self._wait()
        self.seconds, self.cpu = time.perf_counter() - self._began, time.process_time() - self._cpu

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


# ---- Tiny


class Tiny:
    """A loaded sampler, and what is measured on it."""

    def __init__(self, args):
        from MagicTime.utils.config import read_config
        from MagicTime.utils.prompts import read_source
        from MagicTime.utils.run import load_model, weight_paths

        self.args, self.device = args, pick_device(args.gpu_num)
        self.configs = {
            kind: read_config(
                args.config,
                {"file_path": path, "save_predx_0": False, "batch_size": args.batch_size},
            )
            for kind, path in PROMPTS.items()
        }
        self.prompts = {
            kind: read_source(config.settings, config.path)[: args.videos]
            for kind, config in self.configs.items()
        }
        config = self.configs["unsafe"]
        self.model = load_model(config, weight_paths(config), self.device, tell=False)
        self.memory = []
        self.guards = {
            name: self._guarding(name, getattr(args, name))
            for name in ("grid", "shared")
            if getattr(args, name)
        }

    def _guarding(self, name, folder):
        """Guarding by the detectors of `folder`; what it adds to this process's memory goes to
        `memory`."""
        from MagicTime.utils.guarded import Guarding

        gc.collect()
        before = status("RssAnon")
        guarding = Guarding(
            folder, self.args.lambda_, self.args.eta, self.device, allow_unknown=True
        )
        bank, shape = guarding.guard.bank, self._latent_shape()
        for step in range(self.args.eta):
            bank.score(
                step, guarding.guard.reader(step, torch.zeros(1, *shape, device=self.device))
            )
        paths = {member.path for member in guarding.guard.members}
        self.memory.append(
            (
                name,
                {
                    "MiB added": status("RssAnon") - before,
                    "files": len(paths),
                    "MiB of files": sum(path.stat().st_size for path in paths) / 2**20,
                },
            )
        )
        return guarding

    def _latent_shape(self):
        s, factor = self.configs["unsafe"].settings, self.model.latent_factor
        return self.model.unet.config.in_channels, s["L"], s["H"] // factor, s["W"] // factor

    def step_rows(self, batch):
        """Milliseconds of a denoising step of a batch, and of what each guard does there: medians
        of steps below eta."""
        from MagicTime.utils.pipeline import sample

        s, times, cpu = self.configs["unsafe"].settings, {}, {}
        texts = [prompt.text for prompt in self.prompts["unsafe"]][:batch]
        last = [time.perf_counter(), time.process_time()]

        def note(name, seconds, cpu_seconds):
            times.setdefault(name, []).append(seconds)
            cpu.setdefault(name, []).append(cpu_seconds)

        def on_step(step, timestep, x0, latents):
            note("sampling", time.perf_counter() - last[0], time.process_time() - last[1])
            for name, guarding in self.guards.items():
                guard = guarding.guard
                with Clock(self.device) as clock:
                    guard.bank.score(step, guard.reader(step, x0))
                note(name, clock.seconds, clock.cpu)
            last[:] = time.perf_counter(), time.process_time()
            return None if step + 1 < self.args.eta else []

        for repeat in range(1 + 4 * self.args.repeats):  # the first one warms up
            if repeat == 1:
                times.clear()
                cpu.clear()
            last[:] = time.perf_counter(), time.process_time()
            sample(
                self.model,
                texts,
                [""] * batch,
                list(range(batch)),
                s["L"],
                s["H"],
                s["W"],
                s["steps"],
                s["guidance_scale"],
                on_step=on_step,
            )
        whole = statistics.median(times["sampling"]), statistics.median(cpu["sampling"])
        return [
            (
                f"{name}, batch of {batch}",
                {
                    "ms": statistics.median(times[name]) * 1e3,
                    "percent": statistics.median(times[name]) / whole[0] * 100,
                    "CPU ms": statistics.median(cpu[name]) * 1e3,
                    "CPU percent": statistics.median(cpu[name]) / whole[1] * 100,
                },
            )
            for name in times
        ]

    def video_rows(self, folder):
        """Seconds of whole runs, decoded and written, without and with each guard, in turns."""
        cases = [(kind, name) for kind in PROMPTS for name in ("no guard", *self.guards)]
        taken, stopped = {case: [] for case in cases}, {}
        for repeat in tqdm(range(self.args.repeats), desc="runs"):
            for case in cases if repeat % 2 else cases[::-1]:  # neither always comes first
                clock, stopped[case] = self._run(*case, folder / f"{repeat}{'-'.join(case)}")
                taken[case].append((clock.seconds, clock.cpu))
        rows = []
        for kind, name in cases:
            seconds, cpu = (statistics.median(column) for column in zip(*taken[kind, name]))
            without = [statistics.median(column) for column in zip(*taken[kind, "no guard"])]
            rows.append(
                (
                    f"{kind}, {name}",
                    {
                        "stopped": stopped[kind, name],
                        "seconds": seconds,
                        "CPU seconds": cpu,
                        "times less": without[0] / seconds,
                        "times less CPU": without[1] / cpu,
                    },
                )
            )
        return rows

    def _run(self, kind, name, folder):
        from MagicTime.utils.run import Run

        run = Run(
            self.configs[kind],
            self.prompts[kind],
            folder,
            self.device,
            model=self.model,
            guarding=self.guards.get(name),
        )
        run.load()
        with Clock(self.device) as clock:
            run.sample()
        return clock, sum(line["stopped"] for line in run.verdicts.read().values())


def measure_tiny(args, report):
    if not (args.grid or args.shared):
        raise InputError("--grid or --shared: detectors are needed")
    tiny = Tiny(args)
    report.add(
        "memory",
        f"of this process, when the detectors of the first {args.eta} steps were loaded and used",
        tiny.memory,
    )
    rows = [row for batch in sorted({1, args.batch_size}) for row in tiny.step_rows(batch)]
    report.add(
        "step",
        f"of {args.config}: one guided denoising step, and reading its x0, medians of steps 0 to "
        f"{args.eta - 1}",
        rows,
    )
    with tempfile.TemporaryDirectory() as folder:
        report.add(
            "videos",
            f"{args.videos} prompts of each kind in batches of {args.batch_size}, lambda "
            f"{args.lambda_}, eta {args.eta}, decoded and written; {args.repeats} run(s) of "
            "each, median",
            tiny.video_rows(Path(folder)),
        )


# ---- full size


def random_step(size, networks, latent_shape, device):
    """Function of x0 [1, C, F, h, w]: what a guard of random detectors does at a step; and the MiB
    of their weights."""
    from lvd.detectors.bank import _Step
    from lvd.detectors.detector import build_detector
    from lvd.detectors.shared import build_shared, predict_shared

    if networks == 1:
        shared = build_shared(
            size, latent_shape, "latent", 0, list(range(FULL_STEPS)), [str(k) for k in range(5)]
        )
        shared.net.to(device).eval().requires_grad_(False)
        return lambda x0: predict_shared(shared, 0, x0), weights_mib(shared.net)
    detectors = [build_detector(size, latent_shape, "latent", seed) for seed in range(networks)]
    for detector in detectors:
        detector.model.to(device).eval().requires_grad_(False)
    return _Step(detectors).score, sum(weights_mib(detector.model) for detector in detectors)


def weights_mib(model):
    return sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 2**20


@torch.inference_mode()
def full_rows(device, step_seconds, latent_shape, repeats):
    """[(case, figures)] of reading one x0, in percent of a denoising step's seconds."""
    x0, rows = torch.randn(1, *latent_shape, device=device).half(), []
    for size, networks in FULL:
        score, mib = random_step(size, networks, latent_shape, device)
        score(x0)
        seconds = []
        for _ in range(repeats):
            with Clock(device) as clock:
                score(x0)
            seconds.append(clock.seconds)
        rows.append(
            (
                f"latents, {size} {'shared' if networks == 1 else f'x {networks}'}",
                {
                    "ms": statistics.median(seconds) * 1e3,
                    "percent": statistics.median(seconds) / step_seconds * 100,
                    "MiB of a step's weights": mib,
                },
            )
        )
    return rows


def measure_full(args, report):
    device = pick_device(args.gpu_num)
    dtype = getattr(torch, args.dtype or ("float16" if device.type == "cuda" else "bfloat16"))
    unet = random_unet(SD15, device, dtype)
    seconds = guided_steps(unet, LATENTS, 6 if device.type == "cuda" else 1)[
        1 if device.type == "cuda" else 0 :
    ]
    del unet
    report.add(
        "UNet step",
        f"guided, on {device.type} in {str(dtype).removeprefix('torch.')}, {list(LATENTS)} "
        "latents, random weights",
        [("seconds", spread(seconds))],
    )
    report.add(
        "guarded step",
        "reading x0 at one step by random detectors of five categories in float32; percent of that "
        "step",
        full_rows(device, statistics.median(seconds), LATENTS, 5 * args.repeats),
    )


def work(args):
    if min(args.repeats, args.videos, args.batch_size, args.eta) < 1:
        raise InputError("--repeats, --videos, --batch_size, --eta: at least 1 is needed")
    where = "at full size" if args.full else "on Tiny"
    name = "guard_cost_full.csv" if args.full else "guard_cost.csv"
    report = Report(f"The guard {where}: what it adds and what it saves", results_path(args, name))
    (measure_full if args.full else measure_tiny)(args, report)
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
