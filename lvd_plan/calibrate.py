"""Measure how fast this machine works, in about a minute: with random weights of the real sizes."""

import hashlib
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch

from lvd.data.clip_cache import statistics
from lvd.data.clip_file import read_stored, write_clip
from lvd.data.transforms import resize_clips
from lvd.detectors.videomae import scratch_config
from lvd.training.recipes import stackable
from lvd.utils.config import ROOT, versions
from lvd.utils.disk import nearest
from lvd.utils.files import raw_bytes, save_torch
from lvd.utils.processes import one_thread
from lvd.utils.progress import progress
from lvd_plan import flops
from lvd_plan.inputs import UNSAFE, is_many_lanes
from lvd_plan.networks import layers, network_config, seen_tokens
from lvd_plan.random_models import filled
from lvd_plan.rates import SURE, Rates, save_rates, table
from lvd_plan.work import LOOKED_AT, decode_dtype

LEAST = 1.5  # seconds that a rate is measured for, unless one run takes longer
MOST_RUNS = 20
LARGE_FILE = 256 << 20  # bytes written to see how fast the disk is
CLIPS = 20  # files written and read
SCANNED = 4 << 20  # numbers of the clips whose reading from memory is measured


class Calibration:
    """Measures Rates for the sizes of a plan.

    Args:
        inputs: Inputs.
        workload: Workload.
        device: torch.device.
        model: "grid", "shared" or "both".
        folder: where the results will lie: its disk is measured.
    """

    def __init__(self, inputs, workload, device, model, folder):
        self.inputs, self.workload, self.device, self.model = inputs, workload, device, model
        self.folder = nearest(Path(folder))
        self.settings = inputs.sampling.settings
        self.reached, self.host, self.peak = {}, {}, {}

    def run(self, path):
        """Measure everything, and save it.

        Args:
            path: of the plan_rates.json.

        Returns:
            Rates.
        """
        parts = [self.sampler, self._files, self._small_things]
        parts += [self._grid] if self.model != "shared" else []
        parts += [self._shared] if self.model != "grid" else [self._names]
        for part in progress(parts, "calibration", unit="part"):
            part()
            self._clear()
        memory = None
        name = _cpu_name()
        if self.device.type == "cuda":
            properties = torch.cuda.get_device_properties(self.device)
            name, memory = properties.name, properties.total_memory
        rates = Rates(
            name,
            memory,
            f"measured on this machine ({name})",
            SURE,
            self.reached,
            table()["host"] | self.host,
            self.peak,
            self.device.type == "cpu",
        )
        of = versions()
        told = ", ".join(f"{key} {of[key]}" for key in ("torch", "diffusers") if key in of)
        save_rates(rates, f"{name}, {date.today()}, {told}", path)
        return rates

    def sampler(self):
        """Measure the UNet and the VAE alone."""
        self._unet()
        self._clear()
        self._decode()

    def _unet(self):
        """Guided denoising steps of a batch, in the config's dtype and with its attention."""
        from MagicTime.utils import hardware
        from MagicTime.utils.weights.motion_unet import make_motion_unet

        inputs, settings = self.inputs, self.settings
        dtype = getattr(torch, settings.dtype)
        with self._peak("sample unsafe", "sample normal"):
            unet = filled(lambda: make_motion_unet(inputs.models.unet), self.device, dtype)
            width, passes = unet.config.cross_attention_dim, 2 * settings.batch_size
            text = torch.randn(passes * settings.L, flops.TOKENS, width, device=self.device)
            latents = torch.randn(passes, *inputs.latents, device=self.device)
            timestep = torch.tensor(500, device=self.device)

            @torch.inference_mode()
            def step():
                unet(latents.to(dtype), timestep, encoder_hidden_states=text.to(dtype))

            with hardware.kernels(SimpleNamespace(attention=settings.attention)), self._threads():
                seconds = self._time(step)
        beside = self.workload.sampler_bytes() - sum(w.nbytes for w in unet.parameters())
        for kind in ("sample unsafe", "sample normal"):
            if kind in self.peak:  # the VAE and the text encoder wait there
                self.peak[kind] += beside
        done = settings.batch_size * self.workload.sampler.step
        self.reached[f"unet {settings.dtype}"] = done / seconds

    def _decode(self):
        """Decoding a video, as the sampler does it and, for video clips, as build_x0.py does."""
        wanted = {self.settings.dtype: None}
        if self.workload.is_video:
            wanted[decode_dtype(self.inputs)] = self._frames_at_once()
        for dtype, at_once in wanted.items():
            self._decode_in(dtype, at_once)

    def _decode_in(self, dtype, at_once):
        from diffusers import AutoencoderKL

        from MagicTime.utils.pipeline import decode

        config = self.inputs.models.vae
        vae = filled(lambda: AutoencoderKL.from_config(config), self.device, getattr(torch, dtype))
        latents = torch.randn(self.inputs.latents, device=self.device)

        @torch.inference_mode()
        def one():
            decode(vae, latents, at_once)

        with self._threads():
            seconds = self._time(one)
        self.reached[f"vae {dtype}"] = self.workload.sampler.decode / seconds

    def _frames_at_once(self):
        from MagicTime.utils.vae_decoder import VaeDecoder

        return VaeDecoder({}, str(self.device))._frames_at_once(torch.empty(self.inputs.latents))

    def _grid(self):
        """Optimiser steps of the grid's detectors, and reading with them."""
        from lvd.training.grid import train_network

        settings = self.inputs.grid
        config = network_config(self.inputs, settings)
        count = self._together(settings)
        network = self._network(config, count, settings)
        shape = (config.num_channels, config.num_frames, *_sides(config))
        clips = 2 * settings.batch_size
        data = torch.randn(count, clips, *shape, device=self.device)
        labels, places = torch.arange(clips) % 2, torch.arange(clips)
        of_network = torch.arange(count, device=self.device)[:, None]
        short = replace(settings, epoch=2)

        def inputs_of(rows):
            return data[of_network, rows.to(self.device)]

        def train():
            train_network(network, inputs_of, labels, places, short, range(count))

        with one_thread(settings.size != "base"), self._peak("train_mae"):
            seconds = self._time(train)
        trained = flops.detector_flops(config, seen_tokens(config, settings))[1]
        done = 2 * clips * count * trained
        self.reached[f"grid {settings.size} {settings.precision}"] = done / seconds
        if settings.precision != "float32":  # votes are in float32
            self._look(config, LOOKED_AT, f"grid {settings.size}")

    def _look(self, config, clips, kind=None):
        """Seconds of a pass in float32 without gradients; what it reaches is kept as of a kind."""
        model = _random_detector(config).to(self.device)
        shape = clips, config.num_frames, config.num_channels, *_sides(config)
        inputs = torch.randn(shape, device=self.device)

        @torch.inference_mode()
        def look():
            model(inputs).logits.cpu()

        with one_thread(config.hidden_size < 768):
            seconds = self._time(look)
        if kind:
            self.reached[f"{kind} float32"] = clips * flops.detector_flops(config)[0] / seconds
        return seconds

    def _small_things(self):
        """What takes time beside operations and files: many small passes, clips in memory."""
        config = scratch_config("nano", self.inputs.latents, "latent")
        self.host["layer"] = self._look(config, 1) / layers(config)
        clips = torch.randn(max(1, SCANNED // prod(self.inputs.latents)), *self.inputs.latents)
        clips = clips.half()
        places = torch.randperm(len(clips))

        def scan():
            statistics(clips)
            hashlib.sha256(raw_bytes(clips))

        with one_thread(True):
            self.host["scan_byte"] = _timed(scan) / clips.nbytes
            gathered = _timed(lambda: clips[places].to(self.device, torch.float32))
        self.host["gather_byte"] = gathered / clips.nbytes

    def _together(self, settings):
        from lvd.training.chunks import PAYS

        if not stackable(settings):
            return 1
        most = settings.together or PAYS.get(self.device.type, 1)
        return max(1, min(most, self.settings.steps, 10 if settings.size != "nano" else most))

    def _network(self, config, count, settings):
        from lvd.detectors.stacked import SingleDetector, StackedDetectors

        models = [_random_detector(config) for _ in range(count)]
        if stackable(settings) and settings.together != 1:
            return StackedDetectors(models, self.device)
        return SingleDetector(models[0], self.device)

    def _shared(self):
        self._train_shared(self.inputs.shared, "train shared", "folds, shared")

    def _names(self):
        self._train_shared(self.inputs.names, "names")

    def _train_shared(self, settings, *steps):
        """Optimiser steps of the network for all steps."""
        from lvd.detectors.shared import SharedNet
        from lvd.training.augment import random_mask
        from lvd.training.loop import Training, precision
        from lvd.training.parts import parts_of

        config = network_config(self.inputs, settings)
        net = SharedNet(_random_detector(config), self.settings.steps, 5).to(self.device)
        training = Training(net, settings, per_epoch=1000)
        generator = torch.Generator().manual_seed(0)
        shape = (config.num_channels, config.num_frames, *_sides(config))
        trained = self.workload.counts.trained
        videos = trained[UNSAFE] if "names" in steps else sum(trained.values())
        batch = min(settings.batch_size, max(1, videos * self.settings.steps))
        inputs = torch.randn(batch, *shape, device=self.device)
        at = torch.zeros(batch, dtype=torch.long, device=self.device)
        tokens = net.videomae.embeddings.num_patches

        def losses():
            hidden = random_mask(tokens, len(inputs), settings.mask, generator)
            for part in parts_of(config, settings, len(inputs)):
                with precision(settings, self.device):
                    unseen = hidden if hidden is None else hidden[part].to(self.device)
                    loss = net(inputs[part], at[part], unseen).float().square().mean()
                yield loss

        def step():
            training.step(losses())

        with one_thread(settings.size != "base"), self._peak(*steps):
            seconds = self._time(step)
        of_clip = flops.detector_flops(config, seen_tokens(config, settings))[1]
        self.reached[f"shared {settings.size} {settings.precision}"] = batch * of_clip / seconds
        if settings.precision != "float32":  # validation and votes are in float32
            self._look(config, LOOKED_AT, f"shared {settings.size}")

    def _files(self):
        """The disk, clips, and mp4 files."""
        self.host["start"] = _timed(_start_script)
        with TemporaryDirectory(dir=self.folder, prefix=".plan-") as folder:
            folder = Path(folder)
            large = torch.zeros(LARGE_FILE, dtype=torch.uint8).random_()
            self.host["write_byte"] = _timed(lambda: save_torch(large, folder / "large.pth")) / len(
                large
            )
            small = torch.randn(self.inputs.latents)
            names = [folder / str(number) for number in range(CLIPS)]
            seconds = _timed(lambda: [write_clip(name, small, "latent") for name in names])
            extra = CLIPS * small.numel() * 2 * self.host["write_byte"]
            self.host["write_file"] = max(1e-5, seconds - extra) / CLIPS
            files = [name.with_suffix(".pt") for name in names]
            self.host["read_file"] = _timed(lambda: [read_stored(file) for file in files]) / CLIPS
            self._mp4(folder)

    def _mp4(self, folder):
        settings = self.settings
        shape = 3, settings.L, settings.H, settings.W
        coarse = torch.rand(1, 3, settings.L, max(1, settings.H // 16), max(1, settings.W // 16))
        clip = torch.nn.functional.interpolate(coarse, shape[1:], mode="trilinear")[0]
        pixels, count = prod(shape[1:]), 3
        names = [folder / f"clip{number}" for number in range(count)]
        seconds = _timed(lambda: [write_clip(name, clip, "video") for name in names])
        self.host["write_pixel"] = seconds / (count * pixels)
        if self.workload.is_video and self.model != "shared":
            config = network_config(self.inputs, self.inputs.grid)

            def read():
                for name in names:
                    clip = read_stored(name.with_suffix(".mp4"), "video")
                    resize_clips(clip[None].float() / 255, config)

            self.host["read_pixel"] = _timed(read) / (count * pixels)

    def _time(self, call):
        """Return the mean seconds of a call, after one that warms up."""
        on_gpu = self.device.type == "cuda"
        first = self._once(call)
        if not on_gpu and first > LEAST:
            return first
        began, runs = time.perf_counter(), 0
        while runs < MOST_RUNS and (time.perf_counter() - began < LEAST or not runs):
            self._once(call)
            runs += 1
        return (time.perf_counter() - began) / runs

    def _once(self, call):
        began = time.perf_counter()
        call()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    @contextmanager
    def _peak(self, *steps):
        """Note the most memory of the GPU in the block as that of some steps."""
        if self.device.type == "cuda":
            torch.cuda.init()  # without it a new process has no such device to forget a peak of
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            for step in steps:
                self.peak[step] = peak

    @contextmanager
    def _threads(self):
        """On a CPU the tiny world is sampled by processes of one thread each."""
        with one_thread(self.device.type == "cpu" and is_many_lanes(self.inputs)):
            yield

    def _clear(self):
        if self.device.type == "cuda":
            import gc

            gc.collect()
            torch.cuda.empty_cache()


def _random_detector(config):
    from transformers import VideoMAEForVideoClassification

    return VideoMAEForVideoClassification(config).eval()


def _sides(config):
    size = config.image_size
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def _start_script():
    """Import what a script imports, in a process of its own."""
    words = "import diffusers, lvd.training.grid, MagicTime.utils.run"
    subprocess.run([sys.executable, "-c", words], cwd=ROOT, check=True, capture_output=True)


def _timed(call):
    began = time.perf_counter()
    call()
    return max(1e-6, time.perf_counter() - began)


def _cpu_name():
    """Return the name of the CPU and its number of cores."""
    name = "CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores"
