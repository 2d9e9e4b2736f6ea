"""Measure what a denoising step, a decoded video and a look of the guard cost on this machine.

One video at a time: the model of a sampling YAML denoises a few steps, decodes, and detectors look
at the predicted x0 as the guard does. Seconds are medians; operations are exact counts of matrix
products and convolutions, two for each multiply-add.
"""

import statistics
import sys
from argparse import Namespace
from pathlib import Path

from lvd.data.config import read_data_config
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.files import need_no_folder, save_json
from lvd.utils.processes import pick_device

STEPS = 6  # timed; the first one warms up and does not count
REPEATS = 7  # of a decoded video and of a look


def build_parser():
    parser = Parser(
        __doc__,
        "python -m lvd_study.step_cost --config build_x0.yaml --model_dir MagicTime/shared "
        "--save_path step_cost.json --gpu_num -1",
    )
    parser.add_argument("--config", type=Path, required=True, help="as build_x0.yaml")
    parser.add_argument("--model_dir", type=Path, required=True, help="detectors that look")
    parser.add_argument("--save_path", type=Path, required=True, help="JSON to write")
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    return parser


def work(args):
    import torch

    from lvd.detectors.bank import load_bank
    from MagicTime.utils.config import read_config
    from MagicTime.utils.pipeline import decode
    from MagicTime.utils.run import load_model
    from MagicTime.utils.sampling_plan import weight_paths

    need_no_folder(args.save_path, "--save_path")
    device = pick_device(args.gpu_num)
    bank = load_bank(args.model_dir, device)
    data = read_data_config(args.config, Namespace(), required=("sample_config",))
    config = read_config(data.sample_config)
    model = load_model(config, weight_paths(config), device, tell=False)
    with torch.inference_mode():
        step, x0 = _steps(model, config.settings, device)
        video = x0[0]
        pieces = {
            "step": step,
            "decode": _measured(lambda: decode(model.vae, video, device=device), device),
            "look": _measured(_look(bank, model, x0), device),
        }
    about = {"steps": config.settings.steps, "device": _name_of(device)}
    save_json({**pieces, **about, "threads": torch.get_num_threads()}, args.save_path)
    facts = {name: f"{part['seconds'] * 1e3:.2f} ms" for name, part in pieces.items()}
    summary("cost of a step", facts, [args.save_path])


def _steps(model, settings, device):
    """Return ({"seconds", "operations"} of one guided denoising step, its x0 [1, C, F, h, w])."""
    import time

    from benchmarks.common.timing import wait
    from MagicTime.utils.pipeline import sample

    ended, last = [], []

    def on_step(step, timestep, x0, latents):
        wait(device)
        ended.append(time.perf_counter())
        last[:] = [x0]
        return None if len(ended) < STEPS else []

    size = (settings.L, settings.H, settings.W)
    steps = max(2, settings.steps)

    def run(count):
        ended[:] = [0.0] * (STEPS - count)
        scale = settings.guidance_scale
        sample(model, ["a video"], [""], [0], *size, steps, scale, on_step=on_step)

    run(STEPS)
    seconds = [after - before for before, after in zip(ended, ended[1:])]
    # The text is encoded once, however many steps there are.
    one, two = (_operations(lambda count=count: run(count)) for count in (1, 2))
    return {"seconds": statistics.median(seconds), "operations": two - one}, last[0]


def _look(bank, model, x0):
    """Return a function that lets the detectors look at x0 as the guard does."""
    import torch

    from lvd.guard.reader import Reader
    from MagicTime.utils.pipeline import decode

    def pixels(latents):
        return torch.stack([decode(model.vae, one) for one in latents])

    members = [bank.members[group, bank.steps[0]] for group in bank.groups]
    reader = Reader(bank, members, pixels)
    return lambda: bank.score(bank.steps[0], reader(bank.steps[0], x0))


def _measured(call, device):
    """Return {"seconds", "operations"} of a call, which runs once before."""
    from benchmarks.common.timing import Clock

    operations = _operations(call)
    seconds = []
    for _ in range(REPEATS):
        with Clock(device) as clock:
            call()
        seconds.append(clock.seconds)
    return {"seconds": statistics.median(seconds), "operations": operations}


def _operations(call):
    """Return the operations of a call, attention taken apart into the products that it is of."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _name_of(device):
    from benchmarks.common.machine import facts

    return facts()["gpu" if device.type == "cuda" else "cpu"]


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
