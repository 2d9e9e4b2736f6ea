"""One sampling run: a config and an output folder, filled batch by batch, resumable."""

import hashlib
from contextlib import ExitStack
from pathlib import Path

import torch
from tqdm import tqdm

from lvd.command import pick_device
from lvd.errors import InputError
from lvd.files import fingerprint, load_json, save_json
from lvd.settings import ROOT, claim_output, versions
from lvd.x0_file import create_x0_file

from . import config as cfg
from .base import part_config
from .pipeline import decode, sample, to_bytes
from .video import video_kinds, write_video
from .weights import load_magictime

# What two runs into one folder may differ in: none of it changes a video (a batch only to float tolerance).
NOT_IDENTITY = ("batch_size", "save_path", "file_path", "format", "versions")
RECORDINGS = {"save_predx_0": "pred_x0.pth", "save_predx_t": "pred_x_t.pth"}


class Run:
    """Loads the models and claims the output folder; sample() then makes what is missing in it."""

    def __init__(self, config, save_path=None, gpu_num=0):
        self.config, self.settings = config, config.settings
        self.prompts = cfg.prompts_of(self.settings, config.path)
        self.negatives = cfg.negatives_of(self.settings, len(self.prompts), config.path)
        cfg.seeds_of(self.settings, len(self.prompts), config.path, fresh=lambda: 0)  # checked before the long part
        paths = weight_paths(config)
        self._check_sizes(paths["pretrained_model_path"])
        self.out = output_folder(config, save_path)
        self.device = pick_device(gpu_num)
        self.identity = self._identity(paths)
        if (self.out / "config.yaml").exists():  # a folder of another config is refused before the long part
            claim_output(self.out, self.identity, ignore=NOT_IDENTITY)
        scheduler = cfg.make_scheduler(config.scheduler, config.path, self.settings["steps"])
        self.model = load_magictime(paths, scheduler, **config.unet)
        for key, what in self.model.report.items():
            print(f"{key}: {what} ({paths[key]})")
        self.model.to(self.device, getattr(torch, self.settings["dtype"]))
        claim_output(self.out, self.identity, ignore=NOT_IDENTITY)
        self.seeds = self._seeds()
        self.kinds = video_kinds(self.settings["format"])

    def sample(self, limit=None):
        """Make every video and recording that is missing among the first `limit` prompts. Returns how many were made."""
        count = min(limit or len(self.prompts), len(self.prompts))
        size = self.settings["batch_size"]
        with ExitStack() as stack:
            writers = {key: stack.enter_context(self._recording(key)) for key in RECORDINGS if self.settings[key]}
            missing = {row for row in range(count) if not self._done(row, writers)}
            bar = stack.enter_context(tqdm(total=count, initial=count - len(missing), desc="prompts", unit="video"))
            # Batches always begin at multiples of the batch size, so a resumed run repeats the batches of an unbroken one.
            for start in sorted({row // size * size for row in missing}):
                rows = list(range(start, min(start + size, count)))
                wanted = [row for row in rows if row in missing]
                self._sample_rows(rows, wanted, writers)
                bar.update(len(wanted))
        return len(missing)

    def _sample_rows(self, rows, wanted, writers):
        """Sample one batch and write its `wanted` rows: the videos first, then the recordings that call them whole."""
        s, kept = self.settings, {key: [] for key in writers}
        dtype, timesteps = getattr(torch, s["x0_dtype"]), []

        def record(step, timestep, x0, latents):
            timesteps.append(timestep)
            for key, value in (("save_predx_0", x0), ("save_predx_t", latents)):
                if key in kept:
                    kept[key].append(value.to("cpu", dtype))

        try:
            latents = sample(self.model, [self.prompts[r] for r in rows], [self.negatives[r] for r in rows],
                             [self.seeds[r] for r in rows], s["L"], s["H"], s["W"], s["steps"], s["guidance_scale"],
                             s["x0_mode"], record)
            picked = [rows.index(row) for row in wanted]
            for row, place in zip(wanted, picked):
                write_video(self._video(row), to_bytes(decode(self.model.vae, latents[place])), s["fps"], self.kinds)
        except torch.OutOfMemoryError as error:
            raise InputError(_too_large(s, self.device)) from error
        infos = [{"prompt": self.prompts[r], "seed": self.seeds[r], "timesteps": timesteps} for r in wanted]
        for key, writer in writers.items():
            recorded = torch.stack(kept[key], dim=1)  # [B, S, C, F, h, w]
            writer.write_rows(wanted, [recorded[place] for place in picked], infos)

    def filmstrips(self, count):
        """Draw the filmstrips of the first `count` finished prompts that have none. Returns their folder, if any."""
        from .filmstrips import draw_filmstrips

        if not self.settings["save_predx_0"]:
            raise InputError("--filmstrips: shows recorded x0, save_predx_0 must be true")
        return draw_filmstrips(self.out, self.model.vae, count)

    def count_done(self):
        with ExitStack() as stack:
            writers = {key: stack.enter_context(self._recording(key)) for key in RECORDINGS if self.settings[key]}
            return sum(self._done(row, writers) for row in range(len(self.prompts)))

    def outputs(self):
        return [self.out / "videos", *(self.out / name for key, name in RECORDINGS.items() if self.settings[key]),
                self.out / "config.yaml"]

    def describe_x0(self):
        if not self.settings["save_predx_0"]:
            return "not recorded"
        return f"{self.settings['x0_mode']}, {self.settings['steps']} steps, {self.settings['x0_dtype']}"

    def _recording(self, key):
        s, factor = self.settings, self.model.latent_factor
        shape = (self.model.unet.config.in_channels, s["L"], s["H"] // factor, s["W"] // factor)
        meta = {"config": {k: v for k, v in self.identity.items() if k not in NOT_IDENTITY}, "x0_mode": s["x0_mode"],
                "scaling_factor": self.model.vae.config.scaling_factor, "prompts_sha256": self.identity["prompts_sha256"],
                "versions": versions()}
        return create_x0_file(self.out / RECORDINGS[key], len(self.prompts), s["steps"], shape,
                              getattr(torch, s["x0_dtype"]), meta)

    def _done(self, row, writers):
        files = [Path(f"{self._video(row)}.{kind}") for kind in self.kinds]
        return all(f.is_file() for f in files) and all(row in writer.whole for writer in writers.values())

    def _video(self, row):
        return self.out / "videos" / f"{row:04d}"

    def _seeds(self):
        """One seed per prompt; drawn ones are kept beside the videos, so that a resumed run has the same."""
        path, count = self.out / "seeds.json", len(self.prompts)
        if path.exists():
            return load_json(path)
        drawn = []

        def fresh():
            drawn.append(torch.Generator().seed() % 2**32)
            return drawn[-1]

        seeds = cfg.seeds_of(self.settings, count, self.config.path, fresh)
        if drawn:
            save_json(seeds, path)
        return seeds

    def _check_sizes(self, base):
        unet = part_config(base, "unet")
        cfg.check_resolutions(self.config, unet)
        cfg.check_sizes(self.settings, unet, part_config(base, "vae"), self.config.unet["max_length"], self.config.path)

    def _identity(self, paths):
        """The resolved config as saved beside the videos; the prompts and the weights by their hashes.

        The kind of device belongs to it: the same seed gives other noise on a GPU than on a CPU.
        """
        named = {key: f"{_short(path)} ({fingerprint(path)[:16]})" if path else "" for key, path in paths.items()}
        text = "\n".join(self.prompts).encode()
        rest = {key: value for key, value in self.settings.items() if key not in (*cfg.WEIGHTS, "prompt")}
        return {**named, **rest, "prompts": len(self.prompts), "prompts_sha256": hashlib.sha256(text).hexdigest(),
                "device": self.device.type, "unet": self.config.unet, "noise_scheduler_kwargs": self.config.scheduler,
                "versions": versions()}


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
