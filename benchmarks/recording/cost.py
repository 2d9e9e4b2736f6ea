"""What recording x0 adds to sampling: time and memory.

On Tiny: whole runs with and without recording, in turns; what recording does alone, against the
time of a batch; memory after more and more videos. With --full: the same parts alone at the size of
Stable Diffusion 1.5 (512 x 512 pixels, 16 frames), against one guided step of a UNet with random
weights: several on a GPU, one on a CPU.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.common.memory import AnonymousPeak, status
from benchmarks.common.report import Report
from benchmarks.common.results import add_result_flags, results_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command
from lvd.utils.processes import pick_device
from lvd.x0.file import create_x0_file

SD15 = dict(  # config.json of Stable Diffusion 1.5's UNet, as far as it is not the default
    sample_size=64,
    in_channels=4,
    out_channels=4,
    layers_per_block=2,
    block_out_channels=(320, 640, 1280, 1280),
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    cross_attention_dim=768,
    attention_head_dim=8,
    norm_num_groups=32,
)
FULL_STEPS, TOKENS = 50, 77
LATENTS = (4, 16, 64, 64)  # of one video at full size: channels, frames, height, width


def build_parser():
    parser = Parser(__doc__, "python benchmarks/recording/cost.py --repeats 5")
    parser.add_argument(
        "--config", default="sample_configs/Tiny.yaml", help="sampling YAML (default: Tiny)"
    )
    parser.add_argument("--steps", type=int, help="denoising steps (default: the YAML's)")
    parser.add_argument("--batch_size", type=int, help="videos per batch (default: the YAML's)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="pairs of runs (recording alone: more)"
    )
    parser.add_argument("--videos", type=int, default=8, help="videos per run (default: 8)")
    parser.add_argument(
        "--memory_videos",
        default="8,64,200",
        help="look at the memory after so many (default: 8,64,200)",
    )
    parser.add_argument(
        "--memory_steps", type=int, default=20, help="denoising steps of these (default: 20)"
    )
    parser.add_argument("--full", action="store_true", help="measure full size instead of Tiny")
    parser.add_argument(
        "--dtype", help="of the full-size UNet (default: float16 on a GPU, bfloat16 on a CPU)"
    )
    parser.add_argument("--gpu_num", type=int, default=0, help="CUDA device; -1: CPU (default: 0)")
    parser.add_argument(
        "--dir", help="folder to write in, on the disk to measure (default: a temporary one)"
    )
    add_result_flags(parser, "recording.csv or recording_full.csv")
    parser.add_argument(
        "--memory_part",
        choices=("recorded", "not recorded"),
        help="measure memory in this process, print JSON",
    )
    return parser


# ---- whole runs


def tiny_config(args, recorded, **changes):
    from MagicTime.utils.config import read_config

    flags = {"batch_size": args.batch_size, "steps": args.steps, **changes}
    return read_config(
        args.config, {"save_predx_0": recorded, **{k: v for k, v in flags.items() if v is not None}}
    )


def make_run(args, folder, recorded, count, model=None, **changes):
    """A loaded Run of the config's first `count` prompts, in `folder`."""
    from MagicTime.utils.prompts import read_source
    from MagicTime.utils.run import Run

    config = tiny_config(args, recorded, **changes)
    prompts = read_source(config.settings, config.path)[:count]
    run = Run(config, prompts, folder, pick_device(args.gpu_num), model=model)
    run.load()
    return run


def whole_runs(args, folder):
    """Seconds of runs of `args.videos` videos, decoded and written as mp4, with and without
    recording in turns. Returns ([(case, figures)], median seconds of a batch without recording, the
    Run's (batch, steps, shape, dtype))."""
    first = make_run(args, folder / "warm", True, args.videos)
    first.sample()
    seconds, cpu = {True: [], False: []}, {True: [], False: []}
    for repeat in tqdm(range(args.repeats), desc="runs"):
        for recorded in (
            (True, False) if repeat % 2 else (False, True)
        ):  # neither always comes first
            run = make_run(args, folder / f"{repeat}{recorded}", recorded, args.videos, first.model)
            began, began_cpu = time.perf_counter(), time.process_time()
            run.sample()
            seconds[recorded].append(time.perf_counter() - began)
            cpu[recorded].append(time.process_time() - began_cpu)
    rows = []
    for kind, taken in (
        ("", seconds),
        ("CPU seconds, ", cpu),
    ):  # the second hardly feel what else the machine does
        rows += [
            (f"{kind}not recorded", spread(taken[False])),
            (f"{kind}recorded", spread(taken[True])),
            (
                f"{kind}ratio of each pair",
                spread([a / b for a, b in zip(taken[True], taken[False])]),
            ),
            (f"{kind}ratio of the fastest", {"min": min(taken[True]) / min(taken[False])}),
        ]
    batches = -(-args.videos // first.settings["batch_size"])
    return rows, statistics.median(seconds[False]) / batches, first


def spread(values):
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "runs": len(values),
    }


# ---- what recording does, alone


def recording_alone(folder, batch, steps, latent_shape, dtype, device, repeats):
    """Seconds of each part of recording one batch, as MagicTime's Run does it: [(part, spread)].

    copies: x0 of all steps from `device` to the CPU in `dtype`; write: the batch's rows, their
    fsyncs included.
    """
    x0, picked, on_gpu = (
        torch.randn(batch, *latent_shape, device=device),
        list(range(batch)),
        device.type == "cuda",
    )
    info = {
        "prompt": "a prompt of about sixty letters, as long as people write them",
        "seed": 2024,
        "timesteps": list(range(1, 1000, 1000 // steps))[:steps],
    }
    copies, writes = [], []
    meta = {"made_by": "benchmark"}
    with create_x0_file(
        folder / "alone.pth", batch * repeats, steps, latent_shape, dtype, meta
    ) as writer:
        for repeat in range(repeats):
            _wait(device)
            began = time.perf_counter()
            kept = torch.empty((steps, batch, *latent_shape), dtype=dtype, pin_memory=on_gpu)
            for step in range(steps):
                kept[step].copy_(x0[picked].to(dtype), non_blocking=on_gpu)
            _wait(device)
            copied = time.perf_counter()
            writer.write_rows([repeat * batch + i for i in picked], kept.unbind(1), [info] * batch)
            copies.append(copied - began)
            writes.append(time.perf_counter() - copied)
    return copies, writes


def shares(copies, writes, batch_seconds):
    """Recording's parts in milliseconds a batch, and their share of a batch without recording, in
    percent."""
    both = [a + b for a, b in zip(copies, writes)]
    return [
        (
            name,
            {f"{kind}_ms": value * 1e3 for kind, value in list(spread(seconds).items())[:3]}
            | {"median_percent": statistics.median(seconds) / batch_seconds * 100},
        )
        for name, seconds in (
            ("copies to the CPU", copies),
            ("write and fsync", writes),
            ("both", both),
        )
    ]


# ---- memory of a sampling run


def memory_part(args):
    """Memory of this process after more and more videos of one run: [(case, figures)]."""
    counts = [int(text) for text in args.memory_videos.split(",")]
    recorded, rows = args.memory_part == "recorded", []
    with tempfile.TemporaryDirectory(dir=args.dir) as folder, AnonymousPeak() as anonymous:
        run = make_run(
            args,
            Path(folder) / "out",
            recorded,
            max(counts),
            steps=args.memory_steps,
            x0_dtype="float32",
        )
        size = (
            args.memory_steps
            * torch.Size(run.latent_shape).numel()
            * torch.float32.itemsize
            / 2**20
        )
        for count in counts:
            run.sample(count)
            rows.append(
                (
                    f"{args.memory_part}, {count} videos",
                    {
                        "recorded_mib": size * count * recorded,
                        "held_mib": size * run.settings["batch_size"] * recorded,
                        "peak_rss_mib": status("VmHWM"),
                        "peak_anonymous_mib": anonymous.mib,
                        "anonymous_mib": status("RssAnon"),
                    },
                )
            )
    return rows


def memory_elsewhere(args, part):
    keys = ("config", "memory_videos", "memory_steps", "gpu_num", "batch_size", "dir")
    flags = [f"--{key}={getattr(args, key)}" for key in keys if getattr(args, key) is not None]
    ended = subprocess.run(
        [sys.executable, __file__, "--memory_part", part, *flags], stdout=subprocess.PIPE, text=True
    )
    if ended.returncode:
        raise InputError(f"--memory_part '{part}': failed, see above")
    return [(case, figures) for case, figures in json.loads(ended.stdout.splitlines()[-1])]


# ---- full size


def random_unet(config, device, dtype):
    """MagicTime's UNet with small random weights, made in seconds: nothing is initialised twice."""
    from MagicTime.utils.weights.motion_unet import make_motion_unet

    with torch.device("meta"):
        unet = make_motion_unet(config)
    torch.nn.Module.to(unet, dtype)  # diffusers' own `to` warns of modules that it has none of
    unet = unet.to_empty(device=device).requires_grad_(False).eval()
    for tensor in (*unet.parameters(), *unet.buffers()):
        tensor.normal_(std=0.02)
    return unet


@torch.inference_mode()
def guided_steps(unet, latent_shape, count):
    """Seconds of `count` guided denoising steps of one video (two UNet passes, the scheduler), no
    recording."""
    from diffusers import DDIMScheduler

    device, dtype = unet.device, unet.dtype
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(FULL_STEPS, device=device)
    text = torch.randn(
        2 * latent_shape[1], TOKENS, unet.config.cross_attention_dim, device=device, dtype=dtype
    )
    latents, seconds = torch.randn(1, *latent_shape, device=device, dtype=dtype), []
    for timestep in tqdm(scheduler.timesteps[:count], desc="steps"):
        _wait(device)
        began = time.perf_counter()
        both = unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=text).sample
        unconditional, conditional = both.chunk(2)
        noise = unconditional + 8.5 * (conditional - unconditional)
        latents = scheduler.step(noise, timestep, latents).prev_sample
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return seconds


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_full(args, report):
    device = pick_device(args.gpu_num)
    dtype = getattr(torch, args.dtype or ("float16" if device.type == "cuda" else "bfloat16"))
    began = time.perf_counter()
    unet = random_unet(SD15, device, dtype)
    built, parameters = time.perf_counter() - began, sum(p.numel() for p in unet.parameters()) / 1e6
    count = args.repeats + 2 if device.type == "cuda" else 1
    seconds = guided_steps(unet, LATENTS, count)[
        2 if device.type == "cuda" else 0 :
    ]  # two steps to warm up
    report.add(
        "step",
        f"one guided UNet step of one video on {device.type} in "
        f"{str(dtype).removeprefix('torch.')}, {list(LATENTS)} latents, {parameters:.0f} M "
        f"random parameters (made in {built:.0f} s)",
        [("seconds", spread(seconds))],
    )
    del unet
    video = statistics.median(seconds) * FULL_STEPS
    for kept in ("float16", "float32"):
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            copies, writes = recording_alone(
                Path(folder), 1, FULL_STEPS, LATENTS, getattr(torch, kept), device, args.repeats * 2
            )
        both = statistics.median(a + b for a, b in zip(copies, writes))
        report.add(
            f"recording alone, {kept}",
            f"of one video, {FULL_STEPS} steps; percent of {FULL_STEPS} such UNet steps "
            f"({video:.1f} s); it is 1% where a video takes {both * 100:.1f} s",
            shares(copies, writes, video),
        )


def measure_tiny(args, report):
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        rows, batch_seconds, run = whole_runs(args, Path(folder))
        s = run.settings
        batch = min(s["batch_size"], args.videos)
        report.add(
            "whole runs",
            f"seconds of {args.videos} videos of {Path(args.config).name}, batches of "
            f"{s['batch_size']}, {s['steps']} steps, decoded and written as {s['format']}",
            rows,
        )
        copies, writes = recording_alone(
            Path(folder),
            batch,
            s["steps"],
            run.latent_shape,
            getattr(torch, s["x0_dtype"]),
            run.device,
            args.repeats * 4,
        )
        report.add(
            "recording alone",
            f"of a batch of {batch} in {s['x0_dtype']}; percent of a batch's "
            f"{batch_seconds:.2f} s without recording",
            shares(copies, writes, batch_seconds),
        )
    rows = [row for part in ("not recorded", "recorded") for row in memory_elsewhere(args, part)]
    report.add(
        "memory",
        f"after more and more videos of one run, {args.memory_steps} steps, float32: recorded so "
        "far, held for the batch at work, resident",
        rows,
    )


def work(args):
    if args.memory_part:
        print(json.dumps(memory_part(args)))
        return
    if args.repeats < 1 or args.videos < 1:
        raise InputError(f"--repeats {args.repeats}, --videos {args.videos}: at least 1 is needed")
    if args.dir:
        Path(args.dir).mkdir(parents=True, exist_ok=True)
    if args.full:
        report = Report(
            "Recording x0 at full size: what it adds to a step",
            results_path(args, "recording_full.csv"),
        )
        measure_full(args, report)
    else:
        report = Report(
            "Recording x0 on Tiny: what it adds to sampling", results_path(args, "recording.csv")
        )
        measure_tiny(args, report)
    report.say_where()


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
