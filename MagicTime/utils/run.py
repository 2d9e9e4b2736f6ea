"""One sampling run: a config, prompts and an output folder, filled batch by batch, resumable, by one process or several."""

import shutil
from contextlib import ExitStack
from math import prod
from pathlib import Path

import torch
from tqdm import tqdm

from lvd.errors import InputError
from lvd.files import fingerprint, load_json, save_json
from lvd.parallel import Processes
from lvd.settings import ROOT, claim_output, versions
from lvd.x0_file import create_x0_file

from . import config as cfg
from . import hardware
from .base import part_config
from .pipeline import decode, sample, to_bytes
from .prompts import digest, negatives_of, seeds_of, words_cut
from .video import video_kinds, write_video
from .weights import load_magictime

# What two runs into one folder may differ in: none of it changes a video (a batch or a kernel only to float tolerance).
NOT_IDENTITY = ("batch_size", "save_path", "file_path", "format", "versions", *hardware.HARMLESS)
RECORDINGS = {"save_predx_0": "pred_x0.pth", "save_predx_t": "pred_x_t.pth"}


class Run:
    """Checks all that can be checked before the weights are loaded; load() or a given `model`; sample() makes what is missing.

    `prompts`: list of prompts.Prompt, one per row; `out`: the folder; `processes`: who samples (lvd.parallel).
    """

    def __init__(self, config, prompts, out, device, processes=Processes(), model=None):
        self.config, self.settings, self.prompts = config, config.settings, prompts
        self.out, self.device, self.processes, self.model = Path(out), device, processes, model
        self.negatives = negatives_of(self.settings, len(prompts), config.path)
        seeds_of(self.settings, len(prompts), config.path, fresh=lambda: 0)  # checked before the long part
        self.paths = weight_paths(config)
        self.latent_shape = self._latent_shape()
        self.kinds = video_kinds(self.settings["format"])
        self.identity = self._identity()
        if (self.out / "config.yaml").exists():  # a folder of another config is refused before the long part
            self._claim()

    def load(self):
        """Load the weights onto the device, if no model was given, and claim the folder. Returns the model."""
        self.model = self.model or load_model(self.config, self.paths, self.device, self.processes.is_main)
        if self.processes.is_main:
            self._claim()
            self._draw_seeds()
            self._tell_cut_prompts()
        self.processes.barrier()
        self.seeds = self._seeds()
        return self.model

    def sample(self, limit=None):
        """Make every video and recording that is missing among the first `limit` prompts. Returns how many were made,
        by all processes together."""
        count = min(limit or len(self.prompts), len(self.prompts))
        size = self.settings["batch_size"]
        with ExitStack() as stack:
            writers = self._recordings(stack)
            missing = {row for row in range(count) if not self._done(row, writers)}
            self.processes.barrier()  # all have seen the same gaps before anyone fills one
            # Batches always begin at multiples of the batch size, so a resumed run, or one of more processes, repeats the
            # batches of an unbroken one.
            starts = self.processes.share(sorted({row // size * size for row in missing}))
            bar = stack.enter_context(tqdm(total=count, initial=count - len(missing), desc="prompts", unit="video",
                                           disable=not self.processes.is_main))
            for start in starts:
                rows = list(range(start, min(start + size, count)))
                self._sample_rows(rows, [row for row in rows if row in missing], writers, bar)
                bar.update(self._progress(count, missing) - bar.n)
        self.processes.barrier()  # all files are closed
        return len(missing)

    def _sample_rows(self, rows, wanted, writers, bar):
        """Sample one batch and write its `wanted` rows: the videos first, then the recordings that call them whole."""
        s, timesteps = self.settings, []
        picked = [rows.index(row) for row in wanted]
        dtype, on_gpu = getattr(torch, s["x0_dtype"]), self.device.type == "cuda"
        kept = {key: torch.empty((s["steps"], len(wanted), *self.latent_shape), dtype=dtype, pin_memory=on_gpu)
                for key in writers}  # [S, B, C, F, h, w]; pinned, so that the GPU goes on while it is copied

        def record(step, timestep, x0, latents):
            timesteps.append(timestep)
            bar.set_postfix_str(f"step {step + 1}/{s['steps']}", refresh=False)
            bar.update(0)
            for key, value in (("save_predx_0", x0), ("save_predx_t", latents)):
                if key in kept:
                    kept[key][step].copy_(value[picked].to(dtype), non_blocking=on_gpu)

        try:
            with hardware.attention_kernels(s["attention"]):
                latents = sample(self.model, [self.prompts[r].text for r in rows], [self.negatives[r] for r in rows],
                                 [self.seeds[r] for r in rows], s["L"], s["H"], s["W"], s["steps"], s["guidance_scale"],
                                 s["x0_mode"], record)
                for row, place in zip(wanted, picked):
                    frames = to_bytes(decode(self.model.vae, latents[place], device=self.device))
                    write_video(self._video(row), frames, s["fps"], self.kinds)
        except torch.OutOfMemoryError as error:
            raise InputError(_too_large(s, self.device)) from error
        if on_gpu:
            torch.cuda.synchronize(self.device)
        infos = [{"prompt": self.prompts[r].text, "seed": self.seeds[r], "timesteps": timesteps, **self._named(r)}
                 for r in wanted]
        for key, writer in writers.items():
            writer.write_rows(wanted, kept[key].unbind(1), infos)

    def filmstrips(self, count):
        """Draw the filmstrips of the first `count` finished prompts that have none. Returns their folder, if any."""
        from .filmstrips import draw_filmstrips

        if not self.settings["save_predx_0"]:
            raise InputError("--filmstrips: shows recorded x0, save_predx_0 must be true")
        return draw_filmstrips(self.out, self.model.vae, count, self.device)

    def count_done(self):
        with ExitStack() as stack:
            writers = self._recordings(stack, Processes())
            return sum(self._done(row, writers) for row in range(len(self.prompts)))

    def outputs(self):
        return [self.out / "videos", *(self.out / RECORDINGS[key] for key in self._recorded()), self.out / "config.yaml"]

    def describe_x0(self):
        if not self.settings["save_predx_0"]:
            return "not recorded"
        return f"{self.settings['x0_mode']}, {self.settings['steps']} steps, {self.settings['x0_dtype']}"

    def plan(self):
        """What a run will write, as {fact: text}, from what was checked so far."""
        shape = [len(self.prompts), self.settings["steps"], *self.latent_shape]
        size = prod(shape) * getattr(torch, self.settings["x0_dtype"]).itemsize * len(self._recorded())
        there = self.out
        while not there.exists():
            there = there.parent
        return {"prompts": len(self.prompts), "videos": f"{self.settings['L']} frames of {self.settings['W']} x "
                f"{self.settings['H']} pixels, {self.settings['steps']} steps", "x0": self.describe_x0(),
                "recording": f"{' and '.join(RECORDINGS[key] for key in self._recorded()) or 'none'} {shape}, "
                             f"{size / 2**30:.2f} GiB in all ({shutil.disk_usage(there).free / 2**30:.1f} GiB free)",
                "batch_size": self.settings["batch_size"], "processes": self.processes.count, "folder": self.out}

    def _recorded(self):
        return [key for key in RECORDINGS if self.settings[key]]

    def _recordings(self, stack, processes=None):
        """{key: X0Writer}, closed by `stack`. The main process makes the files, the others join."""
        processes = processes or self.processes
        meta = {"config": {k: v for k, v in self.identity.items() if k not in NOT_IDENTITY},
                "x0_mode": self.settings["x0_mode"], "scaling_factor": self.model.vae.config.scaling_factor,
                "prompts_sha256": self.identity["prompts_sha256"], "versions": versions()}

        def opened():
            return {key: stack.enter_context(create_x0_file(
                self.out / RECORDINGS[key], len(self.prompts), self.settings["steps"], self.latent_shape,
                getattr(torch, self.settings["x0_dtype"]), meta, member=(processes.rank, processes.count)))
                for key in self._recorded()}

        writers = opened() if processes.is_main else {}
        processes.barrier()
        return writers or opened()

    def _done(self, row, writers):
        files = [Path(f"{self._video(row)}.{kind}") for kind in self.kinds]
        return all(f.is_file() for f in files) and all(row in writer.whole for writer in writers.values())

    def _progress(self, count, missing):
        """How many of the first `count` rows are done: by their videos, which other processes write too."""
        return count - sum(not Path(f"{self._video(row)}.{self.kinds[-1]}").exists() for row in missing)

    def _video(self, row):
        return self.out / "videos" / self.prompts[row].name

    def _named(self, row):
        """The video's name in the sidecar, where it is not the row's number."""
        return {} if self.prompts[row].name == f"{row:04d}" else {"video": self.prompts[row].name}

    def _tell_cut_prompts(self):
        """The text encoder reads the beginning of long prompts only, as in the original; say so."""
        cut = [(row, words) for row, prompt in enumerate(self.prompts) if (words := words_cut(self.model, prompt.text))]
        if cut and len(self.prompts) > 1:  # a single one is told by --human
            print(f"{len(cut)} of {len(self.prompts)} prompts are longer than the text encoder reads; the first is row "
                  f"{cut[0][0]}, left out: {cut[0][1][:80]}")

    def _draw_seeds(self):
        """Drawn seeds are kept beside the videos, so that a resumed run and other processes have the same."""
        path, drawn = self.out / "seeds.json", []

        def fresh():
            drawn.append(torch.Generator().seed() % 2**32)
            return drawn[-1]

        if not path.exists():
            seeds = seeds_of(self.settings, len(self.prompts), self.config.path, fresh)
            if drawn:
                save_json(seeds, path)

    def _seeds(self):
        path = self.out / "seeds.json"
        return load_json(path) if path.exists() else seeds_of(self.settings, len(self.prompts), self.config.path, None)

    def _latent_shape(self):
        """(C, F, h, w) of one video; InputError unless the sizes fit the models."""
        s, base = self.settings, self.paths["pretrained_model_path"]
        unet, vae = part_config(base, "unet"), part_config(base, "vae")
        cfg.check_resolutions(self.config, unet)
        cfg.check_sizes(s, unet, vae, self.config.unet["max_length"], self.config.path)
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        return unet.get("in_channels", 4), s["L"], s["H"] // factor, s["W"] // factor

    def _claim(self):
        claim_output(self.out, self.identity, ignore=NOT_IDENTITY)

    def _identity(self):
        """The resolved config as saved beside the videos; the prompts and the weights by their hashes.

        The kind of device belongs to it: the same seed gives other noise on a GPU than on a CPU.
        """
        named = {key: f"{_short(path)} ({fingerprint(path)[:16]})" if path else "" for key, path in self.paths.items()}
        rest = {key: value for key, value in self.settings.items() if key not in (*cfg.WEIGHTS, "prompt")}
        if not rest["vae_tiling"]:
            del rest["vae_tiling"]  # said only where it matters: folders from before it existed can be resumed
        return {**named, **rest, "prompts": len(self.prompts), "prompts_sha256": digest(self.prompts),
                "device": self.device.type, "unet": self.config.unet, "noise_scheduler_kwargs": self.config.scheduler,
                "versions": versions()}


def load_model(config, paths, device, tell=True):
    """MagicTime of a Config on `device`, fitted to the hardware; `paths`: of weight_paths."""
    scheduler = cfg.make_scheduler(config.scheduler, config.path, config.settings["steps"])
    model = load_magictime(paths, scheduler, **config.unet, dtype=getattr(torch, config.settings["dtype"]))
    for key, what in model.report.items() if tell else ():
        print(f"{key}: {what} ({paths[key]})")
    cfg.check_length(config.settings, model.unet.config.motion_max_seq_length, config.path)
    return hardware.fit(model, device, config.settings)


def weight_paths(config):
    """{YAML key: Path or ""}; InputError for a file that is not there."""
    paths = {}
    for key in cfg.WEIGHTS:
        value = config.settings[key]
        path = cfg.find(value) if value else ""
        if value and not path.exists():
            raise InputError(f"{config.path}: {key}={value}: not there (looked in the current folder, MagicTime/ and the "
                             f"repository root)")
        paths[key] = path
    if not paths["pretrained_model_path"]:
        raise InputError(f"{config.path}: pretrained_model_path is empty, the base folder is needed")
    if not config.unet_kwargs.get("use_motion_module", True):
        paths["motion_module"] = ""
    return paths


def output_folder(config, save_path):
    """--save-path as given; else the YAML's save_path, or outputs/{its name}, under MagicTime/."""
    if save_path:
        return Path(save_path)
    return cfg.MAGICTIME / (config.settings["save_path"] or Path("outputs") / config.path.stem)


def _short(path):
    """A path that stays the same when the repository moves."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _too_large(settings, device):
    """What to say when a batch does not fit in the device's memory."""
    if settings["batch_size"] > 1:
        return f"batch_size={settings['batch_size']}: does not fit on {device}; a smaller one gives the same videos"
    half = "" if settings["dtype"] != "float32" else "dtype float16, "
    return (f"H={settings['H']}, W={settings['W']}, L={settings['L']}: one video does not fit on {device}; {half}a smaller "
            f"size or a larger device is needed")
