"""Whole guarded samplings at full size in float16: stopped, passed with the same bits, failed
closed."""

import time
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.common.timing import wait
from benchmarks.gpu.detectors import LAMBDA, SAFE, UNSAFE, write_grid, write_shared
from benchmarks.gpu.model import call, make_magictime, make_pipeline, sample_magictime
from lvd import Guard, UnsafeVideoError

ETA = 5


def part(bench):
    sizes, folder = bench.sizes, bench.folder / "guards"
    dtype = torch.bfloat16 if sizes.is_smoke else torch.float16
    model = make_magictime(sizes, bench.device, dtype)
    eta, small = min(ETA, sizes.steps - 1), sizes.detectors[-1]
    unsafe = write_grid(folder / "unsafe", sizes.latents, eta, UNSAFE)
    safe = write_grid(folder / "safe", sizes.latents, eta, SAFE)
    shared = write_shared(folder / "shared", sizes.latents, sizes.steps, SAFE, small)
    runs = Runs(bench, model, eta)
    bench.measure("AnimateDiffPipeline, no guard, twice", runs.plain)
    bench.measure("AnimateDiffPipeline, grid that passes", lambda: runs.passed(safe))
    bench.measure("AnimateDiffPipeline, protected", lambda: runs.protected(safe))
    bench.measure("AnimateDiffPipeline, grid that stops", lambda: runs.stopped(unsafe))
    bench.measure("AnimateDiffPipeline, NaN prompt", lambda: runs.broken(safe, at_once=True))
    bench.measure("AnimateDiffPipeline, overflow", lambda: runs.broken(safe, at_once=False))
    bench.measure("MagicTime's sampler, grid that stops", lambda: runs.magictime(unsafe))
    bench.measure("MagicTime's sampler, grid that passes", lambda: runs.magictime(safe))
    bench.measure(f"AnimateDiffPipeline, shared {small} passes", lambda: runs.passed(shared))
    bench.measure("deterministic algorithms, grid that passes", lambda: runs.deterministic(safe))


class Runs:
    """Samplings of one video by one model."""

    def __init__(self, bench, model, eta):
        self.bench, self.model, self.eta = bench, model, eta
        self.pipe = make_pipeline(model)
        self.video = None  # latents without a guard

    def guard(self, folder):
        return Guard(folder, LAMBDA, self.eta, device=self.bench.device, allow_unknown=True)

    def plain(self):
        call(self.pipe, self.bench.sizes, 2)  # warms up
        self.video, seconds = self._run()
        again, _ = self._run()
        same = torch.equal(again, self.video)
        return {"s": seconds, "same bits twice": same, **spread_of(self.video)}

    def passed(self, folder):
        guard = self.guard(folder)
        with guard.watch(self.pipe) as watch:
            video, seconds = self._run()
        return {
            "s": seconds,
            "safe": watch.results[0].verdict == "safe",
            "all steps run": watch.results[0].steps_run == self.bench.sizes.steps,
            "s to the verdict": watch.results[0].seconds,
            **compared(video, self.video),
            **self.bench.peak_gib(),
        }

    def protected(self, folder):
        """Calls of a protected pipeline: one alone, then two at once on the same weights."""
        safe = self.guard(folder).protect(self.pipe)
        alone, seconds = self._run(safe)
        began = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            videos = [video for video, _ in pool.map(self._run, (safe, safe))]
        found = {"s": seconds, "s of two at once": time.perf_counter() - began}
        found |= compared(alone, self.video)
        found["two at once have the same bits"] = all(torch.equal(v, self.video) for v in videos)
        return found | self.bench.peak_gib()

    def stopped(self, folder, **changes):
        """A call of which nothing may come out."""
        guard, results, video = self.guard(folder), [], None
        began = time.perf_counter()
        try:
            with guard.watch(self.pipe) as watch:
                video, _ = self._run(**changes)
        except UnsafeVideoError as error:
            results = error.results
        result = results[0] if results else watch.results[0]
        return {
            "s": time.perf_counter() - began,
            "verdict": result.verdict,
            "steps run": result.steps_run,
            "nothing handed out": video is None,
            "stopped early": result.steps_run < self.bench.sizes.steps,
            "reason": result.reason,
        }

    def broken(self, folder, at_once):
        """A video that is not finite from the first step on, or by a guidance that overflows."""
        width = self.pipe.unet.config.cross_attention_dim
        nothing = torch.full((1, 77, width), float("nan"), device=self.bench.device)
        if at_once:
            found = self.stopped(folder, prompt_embeds=nothing.to(self.pipe.unet.dtype))
        else:
            found = self.stopped(folder, guidance_scale=1e38)
        return {**found, "unchecked": found["verdict"] == "unchecked"}

    def magictime(self, folder):
        """The sampler of this repository with its own guard, and without one."""
        from MagicTime.utils.guarded import Guarding

        sizes, device = self.bench.sizes, self.bench.device
        ways = {}
        for guarded in (False, True):
            guarding = Guarding(folder, LAMBDA, self.eta, device, allow_unknown=True)
            batch = guarding.batch([0], [0], sizes.steps)
            on_step = judging(batch) if guarded else None
            began = time.perf_counter()
            latents = sample_magictime(self.model, sizes, sizes.steps, on_step)
            wait(device)
            ways[guarded] = latents, time.perf_counter() - began
        found = {"s without": ways[False][1], "s": ways[True][1]}
        result = batch.results[0]
        found |= {"verdict": result.verdict, "steps run": result.steps_run}
        if result.verdict == "safe":
            return found | compared(ways[True][0], ways[False][0])
        return found | {"nothing handed out": not batch.allowed([0]) and not len(ways[True][0])}

    def deterministic(self, folder):
        """A passing run against an unguarded one where torch takes deterministic algorithms."""
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            plain, _ = self._run()
            with self.guard(folder).watch(self.pipe):
                video, _ = self._run()
        finally:
            torch.use_deterministic_algorithms(False)
        return compared(video, plain)

    def _run(self, pipe=None, **changes):
        """(latents, seconds) of a call of the pipeline, or of another face of it."""
        wait(self.bench.device)
        began = time.perf_counter()
        video = call(pipe or self.pipe, self.bench.sizes, self.bench.sizes.steps, **changes)
        wait(self.bench.device)
        return video, time.perf_counter() - began


def judging(batch):
    """The on_step of MagicTime's sampler that asks a GuardedBatch."""
    return lambda step, timestep, x0, latents: batch.step(step, x0)


def compared(video, other):
    """{name: figure}: whether two videos are the same, and how far apart they are."""
    if other is None:
        return {"compared": "with nothing: the unguarded run failed"}
    found = {"same bits as unguarded": torch.equal(video, other)}
    if not found["same bits as unguarded"]:
        found["largest difference"] = float((video.float() - other.float()).abs().max())
    return found


def spread_of(video):
    return {"finite": bool(torch.isfinite(video).all()), "std": float(video.float().std())}
