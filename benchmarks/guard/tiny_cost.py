"""What a guard adds to sampling Tiny's videos, and what it saves, measured in this process."""

import gc
import statistics
import time

import torch

from benchmarks.common.memory import status
from benchmarks.common.timing import Clock
from lvd.utils.processes import pick_device
from lvd.utils.progress import progress

PROMPTS = {"unsafe": "ckpts/Tiny/prompts/unsafe.txt", "normal": "ckpts/Tiny/prompts/normal.txt"}
WITHOUT = "no guard"
SAMPLING = "sampling"
ROUNDS = 4  # samplings of the first steps for every repeat
MOST_TIMED = 20  # steps of them; a rule may look at all
MIB = 2**20


class Tiny:
    """A loaded sampler, and the guards whose cost is measured on it.

    Args:
        args: of benchmarks/guard/cost.py.

    Attributes:
        guards: {"grid" | "shared": Guarding} of the folders given.
        memory: [(guard, figures)]: what each added to this process's memory, in MiB.
        timed_steps: how many of the first steps are timed one by one.
    """

    def __init__(self, args):
        from MagicTime.utils.config import read_config
        from MagicTime.utils.prompts import read_source
        from MagicTime.utils.run import load_model
        from MagicTime.utils.sampling_plan import weight_paths

        self.args = args
        self.timed_steps = min(args.horizon, MOST_TIMED)
        self.device = pick_device(args.gpu_num)
        self.configs, self.prompts = {}, {}
        for kind, path in PROMPTS.items():
            flags = {"file_path": path, "save_predx_0": False, "batch_size": args.batch_size}
            config = read_config(args.config, flags)
            self.configs[kind] = config
            self.prompts[kind] = read_source(config.settings, config.path)[: args.videos]
        config = self.configs["unsafe"]
        self.model = load_model(config, weight_paths(config), self.device, tell=False)
        self.memory = []
        self.guards = {}
        for name in ("grid", "shared"):
            if folder := getattr(args, name):
                self.guards[name] = self._load_guard(name, folder)

    def _load_guard(self, name, folder):
        """Guarding by the detectors of `folder`, used once; what it adds goes to `memory`."""
        from MagicTime.utils.guarded import Guarding

        gc.collect()
        before = status("RssAnon")
        vote = self.args.lambda_, self.args.eta
        guarding = Guarding(folder, *vote, self.device, allow_unknown=True, rule=self.args.rule)
        x0 = torch.zeros(1, *self._latent_shape(), device=self.device)
        for step in range(self.args.horizon):
            read_step(guarding, step, x0)
        paths = {member.path for member in guarding.guard.members}
        figures = {
            "MiB added": status("RssAnon") - before,
            "files": len(paths),
            "MiB of files": sum(path.stat().st_size for path in paths) / MIB,
        }
        self.memory.append((name, figures))
        return guarding

    def _latent_shape(self):
        """(C, F, h, w) of one video."""
        s, factor = self.configs["unsafe"].settings, self.model.latent_factor
        return self.model.unet.config.in_channels, s.L, s.H // factor, s.W // factor

    # ---- a step

    def step_rows(self, batch):
        """[(case, figures)]: milliseconds of a denoising step of a batch, and of what each guard
        does there, medians of the first steps."""
        self._sample_first_steps(batch)  # warms up
        seconds, cpu = {}, {}
        for _ in range(ROUNDS * self.args.repeats):
            for name, taken, cpu_taken in self._sample_first_steps(batch):
                seconds.setdefault(name, []).append(taken)
                cpu.setdefault(name, []).append(cpu_taken)
        step = statistics.median(seconds[SAMPLING])
        cpu_step = statistics.median(cpu[SAMPLING])
        rows = []
        for name in seconds:
            median, cpu_median = statistics.median(seconds[name]), statistics.median(cpu[name])
            figures = {
                "ms": median * 1e3,
                "percent": median / step * 100,
                "CPU ms": cpu_median * 1e3,
                "CPU percent": cpu_median / cpu_step * 100,
            }
            rows.append((f"{name}, batch of {batch}", figures))
        return rows

    def _sample_first_steps(self, batch):
        """[("sampling" | guard, seconds, CPU seconds)] of each of the first steps."""
        from MagicTime.utils.pipeline import sample

        taken = []
        ended = [time.perf_counter(), time.process_time()]  # of the step before

        def on_step(step, timestep, x0, latents):
            now = time.perf_counter(), time.process_time()
            taken.append((SAMPLING, now[0] - ended[0], now[1] - ended[1]))
            for name, guarding in self.guards.items():
                with Clock(self.device) as clock:
                    read_step(guarding, step, x0)
                taken.append((name, clock.seconds, clock.cpu))
            ended[:] = time.perf_counter(), time.process_time()
            return None if step + 1 < self.timed_steps else []

        s = self.configs["unsafe"].settings
        texts = [prompt.text for prompt in self.prompts["unsafe"]][:batch]
        seeds, size = list(range(batch)), (s.L, s.H, s.W)
        scale = s.guidance_scale
        sample(self.model, texts, [""] * batch, seeds, *size, s.steps, scale, on_step=on_step)
        return taken

    # ---- whole videos

    def video_rows(self, folder):
        """[(case, figures)]: seconds of whole runs, decoded and written, without and with each
        guard, in turns."""
        cases = [(kind, name) for kind in PROMPTS for name in (WITHOUT, *self.guards)]
        clocks = {case: [] for case in cases}
        stopped = {}
        for repeat in progress(range(self.args.repeats), "runs"):
            for case in cases if repeat % 2 else cases[::-1]:  # neither always comes first
                place = folder / f"{repeat}{'-'.join(case)}"
                clock, stopped[case] = self._run(*case, place)
                clocks[case].append(clock)
        medians = {}
        for case, taken in clocks.items():
            seconds = statistics.median(clock.seconds for clock in taken)
            medians[case] = seconds, statistics.median(clock.cpu for clock in taken)
        rows = []
        for kind, name in cases:
            seconds, cpu = medians[kind, name]
            whole, cpu_whole = medians[kind, WITHOUT]
            figures = {
                "stopped": stopped[kind, name],
                "seconds": seconds,
                "CPU seconds": cpu,
                "times less": whole / seconds,
                "times less CPU": cpu_whole / cpu,
            }
            rows.append((f"{kind}, {name}", figures))
        return rows

    def _run(self, kind, name, folder):
        """(Clock of a whole run, how many videos it stopped)."""
        from MagicTime.utils.run import Run

        models = {"model": self.model, "guarding": self.guards.get(name)}
        run = Run(self.configs[kind], self.prompts[kind], folder, self.device, **models)
        run.load()
        with Clock(self.device) as clock:
            run.sample()
        return clock, sum(line["stopped"] for line in run.verdicts.read().values())


def read_step(guarding, step, x0):
    """Scores of a step's x0 [B, C, F, h, w], as the guard reads it."""
    guard = guarding.guard
    return guard.bank.score(step, guard.reader(step, x0))
