"""One sampling run: a config, prompts and an output folder, filled batch by batch, resumable, by
one process or several."""

import os
import shutil
from contextlib import ExitStack
from math import prod
from pathlib import Path

import torch

from lvd.errors import InputError
from lvd.utils.config import ROOT, claim_output, versions
from lvd.utils.files import fingerprint, load_json, save_json, sweep_partials
from lvd.utils.locks import try_lock
from lvd.utils.processes import Processes
from lvd.utils.progress import progress
from lvd.x0.file import create_x0_file
from MagicTime.utils import config as cfg
from MagicTime.utils import hardware
from MagicTime.utils.batch_recording import BatchRecording
from MagicTime.utils.model_config import (
    check_length,
    check_resolutions,
    check_sizes,
    make_scheduler,
)
from MagicTime.utils.pipeline import decode, sample, to_bytes
from MagicTime.utils.prompts import digest, negatives_of, seeds_of, words_cut
from MagicTime.utils.safe_guidance import safe_guidance_of
from MagicTime.utils.verdicts import PREVIEWS, VERDICTS, Verdicts, tell, verdict_line
from MagicTime.utils.video import video_kinds, write_video
from MagicTime.utils.weights.base import part_config
from MagicTime.utils.weights.load import load_magictime

# What two runs into one folder may differ in: none of it changes a video (a batch or a kernel only
# to float tolerance).
NOT_IDENTITY = ("batch_size", "save_path", "file_path", "format", "versions", *hardware.HARMLESS)
RECORDINGS = {"save_predx_0": "pred_x0.pth", "save_predx_t": "pred_x_t.pth"}


class Run:
    """Checks all that can be before the weights are loaded; load() them, or give a `model`;
    sample() makes what is missing.

    `prompts`: list of prompts.Prompt, one per row; `out`: the folder; `processes`: who samples
    (lvd.utils.processes); `guarding`: a guarded.Guarding, which stops unsafe videos.
    """

    def __init__(
        self, config, prompts, out, device, processes=Processes(), model=None, guarding=None
    ):
        self.config, self.settings, self.prompts = config, config.settings, prompts
        self.out, self.device, self.processes, self.model = Path(out), device, processes, model
        self.negatives = negatives_of(self.settings, len(prompts), config.where("n_prompt"))
        self._seeds_with(fresh=lambda: 0)  # checked before the long part
        self.paths = weight_paths(config)
        self.latent_shape = self._latent_shape()
        self.kinds = video_kinds(self.settings.format)
        self.safe_guidance = safe_guidance_of(self.settings)
        self.guarding, self.verdicts, self._told = guarding, Verdicts(self.out), {}
        if guarding:
            guarding.check(config, self.latent_shape)
        self.identity = self._identity()
        _need_writable(self.out)
        if (
            self.out / "config.yaml"
        ).exists():  # a folder of another config is refused before the long part
            self._claim()
        self._lock = None

    def load(self):
        """Load the weights onto the device, if no model was given, and claim the folder. Returns
        the model."""
        self.model = self.model or load_model(
            self.config, self.paths, self.device, self.processes.is_main
        )
        try:
            if self.processes.is_main:
                self._enter()
                self._claim()
                self._draw_seeds()
                self._tell_cut_prompts()
            self.processes.barrier()
            self.seeds = self._seeds()
            if self.guarding:
                self.guarding.vae = self.model.vae
        except BaseException:
            self._leave()
            raise
        return self.model

    def sample(self, limit=None):
        """Make every video and recording that is missing among the first `limit` prompts. Returns
        how many were made, by all processes together."""
        count = min(limit or len(self.prompts), len(self.prompts))
        try:
            return self._fill(count, self.settings.batch_size)
        finally:
            self._leave()

    def _fill(self, count, size):
        with ExitStack() as stack:
            writers = self._recordings(stack)
            self._told = self.verdicts.read()
            missing = {row for row in range(count) if not self._done(row, writers)}
            finished = self._finished(writers)
            before = finished() if finished else 0
            self.processes.barrier()  # all have seen the same gaps before anyone fills one
            # Batches begin at multiples of the batch size: a resumed run, or one of more processes,
            # repeats the batches of an unbroken one and gives the same bits.
            starts = self.processes.share(sorted({row // size * size for row in missing}))
            bar = stack.enter_context(
                progress(
                    None,
                    "prompts",
                    unit="video",
                    total=count,
                    initial=count - len(missing),
                    disable=not self.processes.is_main,
                )
            )
            for start in starts:
                rows = list(range(start, min(start + size, count)))
                wanted = [row for row in rows if row in missing]
                self._sample_rows(rows, wanted, writers, bar)
                bar.update(
                    count - len(missing) + finished() - before - bar.n if finished else len(wanted)
                )
        self.processes.barrier()  # all files are closed
        return len(missing)

    def _finished(self, writers):
        """Function that counts the finished videos of all processes; None where nothing tells of
        other processes' ones."""
        if self.guarding:
            return self.verdicts.count
        return next((writer.count_whole for writer in writers.values()), None)

    def _sample_rows(self, rows, wanted, writers, bar):
        """Sample one batch and write its `wanted` rows: videos first, then the recordings that call
        them whole, then the guard's verdicts, which say that a row is done."""
        s, timesteps, here = self.settings, [], list(rows)  # here: those that are being sampled
        recording = BatchRecording(
            writers, wanted, s.steps, self.latent_shape, getattr(torch, s.x0_dtype), self.device
        )
        guarded = self.guarding.batch(rows, wanted, s.steps) if self.guarding else None

        def on_step(step, timestep, x0, latents):
            timesteps.append(timestep)
            bar.set_postfix_str(f"step {step + 1}/{s.steps}", refresh=False)
            bar.update(0)
            recording.step(step, {"save_predx_0": x0, "save_predx_t": latents}, here)
            keep = guarded.step(step, x0) if guarded else None
            if keep is not None:
                here[:] = [here[place] for place in keep]
            return keep

        try:
            with hardware.kernels(s):
                latents = sample(
                    self.model,
                    [self.prompts[r].text for r in rows],
                    [self.negatives[r] for r in rows],
                    [self.seeds[r] for r in rows],
                    s.L,
                    s.H,
                    s.W,
                    s.steps,
                    s.guidance_scale,
                    s.x0_mode,
                    on_step,
                    self.safe_guidance,
                )
                whole = [row for row in wanted if row in here]
                whole = guarded.allowed(whole) if guarded else whole
                for row in whole:
                    write_video(
                        self._video(row),
                        self._frames(row, latents[here.index(row)]),
                        s.fps,
                        self.kinds,
                    )
        except torch.OutOfMemoryError as error:
            raise InputError(_too_large(s, self.device)) from error
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        recording.write(
            whole,
            [
                {
                    "prompt": self.prompts[r].text,
                    "seed": self.seeds[r],
                    "timesteps": timesteps,
                    **self._named(r),
                }
                for r in whole
            ],
        )
        if guarded:
            self._tell_verdicts(guarded, wanted)

    def _tell_verdicts(self, guarded, rows):
        """Draw previews, and write the lines of verdicts.jsonl; one that is there already is not
        repeated."""
        lines = []
        for row in rows:
            prompt, result = self.prompts[row], guarded.results[row]
            if guarded.rgb:
                guarded.preview(
                    self.out / PREVIEWS / f"{prompt.name}.png",
                    row,
                    f"{result.verdict}: {prompt.text}",
                )
            line, before = (
                verdict_line(row, prompt, result, guarded.dry_run),
                self._told.get(row, {}),
            )
            if any(before.get(key) != line[key] for key in ("verdict", "stopped")):
                lines.append(line)
        self.verdicts.append(lines)

    def _frames(self, row, latents):
        """uint8 [F, H, W, 3] of one video's latents [C, F, h, w]. InputError for what is not
        finite: it would be black."""
        pixels = decode(self.model.vae, latents, device=self.device)
        for what, found in (("latents", latents), ("decoded pixels", pixels)):
            if not torch.isfinite(found).all():
                raise InputError(
                    f"row {row} ({self.prompts[row].name}): {what} that are not finite in dtype "
                    f"{self.settings.dtype}; bfloat16 or float32, or a smaller guidance_scale, "
                    "is needed"
                )
        return to_bytes(pixels)

    def filmstrips(self, count):
        """Draw the filmstrips of the first `count` finished prompts that have none. Returns their
        folder, if any."""
        from MagicTime.utils.filmstrips import draw_filmstrips

        if not self.settings.save_predx_0:
            raise InputError("--filmstrips: shows recorded x0, save_predx_0 must be true")
        return draw_filmstrips(self.out, self.model.vae, count, self.device)

    def guard_facts(self):
        """{fact: text} of what the guard did to all videos that are done; {} without one."""
        return tell(list(self.verdicts.read().values())) if self.guarding else {}

    def count_done(self):
        with ExitStack() as stack:
            writers = self._recordings(stack, Processes())
            self._told = self.verdicts.read()
            return sum(self._done(row, writers) for row in range(len(self.prompts)))

    def outputs(self):
        told = [
            self.out / name
            for name in (VERDICTS, PREVIEWS)
            if self.guarding and (self.out / name).exists()
        ]
        videos = self.out / "videos"
        made = (
            [videos] if videos.is_dir() and any(videos.iterdir()) else []
        )  # the guard may have let none pass
        return [
            *made,
            *(self.out / RECORDINGS[key] for key in self._recorded()),
            *told,
            self.out / "config.yaml",
        ]

    def describe_x0(self):
        if not self.settings.save_predx_0:
            return "not recorded"
        return f"{self.settings.x0_mode}, {self.settings.steps} steps, {self.settings.x0_dtype}"

    def plan(self):
        """What a run will write, as {fact: text}, from what was checked so far."""
        shape = [len(self.prompts), self.settings.steps, *self.latent_shape]
        size, free = self._need_space()
        return {
            "prompts": len(self.prompts),
            "videos": f"{self.settings.L} frames of {self.settings.W} x "
            f"{self.settings.H} pixels, {self.settings.steps} steps",
            "x0": self.describe_x0(),
            "recording": f"{' and '.join(RECORDINGS[key] for key in self._recorded()) or 'none'} {shape}, "
            f"{size / 2**30:.2f} GiB in all ({free / 2**30:.1f} GiB free)",
            "batch_size": self.settings.batch_size,
            "processes": self.processes.count,
            "folder": self.out,
            **({"guard": self.guarding.describe()} if self.guarding else {}),
        }

    def _recorded(self):
        return [key for key in RECORDINGS if getattr(self.settings, key)]

    def _recordings(self, stack, processes=None):
        """{key: X0Writer}, closed by `stack`. The main process makes the files, the others join."""
        processes = processes or self.processes
        meta = {
            "config": {k: v for k, v in self.identity.items() if k not in NOT_IDENTITY},
            "x0_mode": self.settings.x0_mode,
            "scaling_factor": self.model.vae.config.scaling_factor,
            "prompts_sha256": self.identity["prompts_sha256"],
            "versions": versions(),
        }

        def opened():
            return {
                key: stack.enter_context(
                    create_x0_file(
                        self.out / RECORDINGS[key],
                        len(self.prompts),
                        self.settings.steps,
                        self.latent_shape,
                        getattr(torch, self.settings.x0_dtype),
                        meta,
                        member=(processes.rank, processes.count),
                    )
                )
                for key in self._recorded()
            }

        if processes.is_main:
            self._need_space()
        writers = opened() if processes.is_main else {}
        processes.barrier()
        return writers or opened()

    def _done(self, row, writers):
        """A video is done when it and its recordings are there; under a guard, when its verdict is
        there besides, which may be all there is."""
        if self.guarding and (row not in self._told or self._told[row]["stopped"]):
            return row in self._told
        files = [Path(f"{self._video(row)}.{kind}") for kind in self.kinds]
        return all(f.is_file() for f in files) and all(
            row in writer.whole for writer in writers.values()
        )

    def _need_space(self):
        """(bytes of the planned recordings, bytes free); InputError when what is still to be
        written does not fit."""
        size = (
            len(self.prompts)
            * self.settings.steps
            * prod(self.latent_shape)
            * len(self._recorded())
            * getattr(torch, self.settings.x0_dtype).itemsize
        )
        paths = [self.out / RECORDINGS[key] for key in self._recorded()]
        there = sum(path.stat().st_blocks * 512 for path in paths if path.exists())
        free = shutil.disk_usage(_existing(self.out)).free
        if size - there > free:
            raise InputError(
                f"{self.out}: the recordings need {(size - there) / 2**30:.1f} GiB more disk, "
                f"{free / 2**30:.1f} GiB are free; fewer prompts, x0_dtype float16 or another disk"
            )
        return size, free

    def _enter(self):
        """Keep other runs out of the folder until `sample` is through, or this process ends."""
        videos = self.out / "videos"
        videos.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(videos, os.O_RDONLY)
        if try_lock(self._lock) is False:
            self._leave()
            raise InputError(
                f"{self.out}: another running process is writing into this folder; wait for it or "
                "stop it"
            )
        sweep_partials(videos)

    def _leave(self):
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _video(self, row):
        return self.out / "videos" / self.prompts[row].name

    def _named(self, row):
        """The video's name in the sidecar, where it is not the row's number."""
        return {} if self.prompts[row].name == f"{row:04d}" else {"video": self.prompts[row].name}

    def _tell_cut_prompts(self):
        """The text encoder reads the beginning of long prompts only, as in the original; say so."""
        cut = [
            (row, words)
            for row, prompt in enumerate(self.prompts)
            if (words := words_cut(self.model, prompt.text))
        ]
        if cut and len(self.prompts) > 1:  # a single one is told by --human
            print(
                f"{len(cut)} of {len(self.prompts)} prompts are longer than the text encoder "
                f"reads; the first is row {cut[0][0]}, left out: {cut[0][1][:80]}"
            )
        if self.safe_guidance and (words := words_cut(self.model, self.safe_guidance.concept)):
            print(f"safety_concept is longer than the text encoder reads; left out: {words[:80]}")

    def _seeds_with(self, fresh):
        return seeds_of(self.settings, len(self.prompts), self.config.where("seed"), fresh)

    def _draw_seeds(self):
        """Drawn seeds are kept beside the videos, so that a resumed run and other processes have
        the same."""
        path, drawn = self.out / "seeds.json", []

        def fresh():
            drawn.append(torch.Generator().seed() % 2**32)
            return drawn[-1]

        seeds = self._seeds_with(fresh)
        if drawn and not path.exists():
            save_json(seeds, path)

    def _seeds(self):
        drawn = []
        seeds = self._seeds_with(lambda: drawn.append(0))
        if not drawn:
            return seeds
        path = self.out / "seeds.json"
        seeds = load_json(path)
        if (
            not isinstance(seeds, list)
            or len(seeds) != len(self.prompts)
            or not all(type(s) is int for s in seeds)
        ):
            raise InputError(
                f"{path}: {len(self.prompts)} whole numbers are needed, the seeds that were drawn "
                "for this folder's videos; use another folder"
            )
        return seeds

    def _latent_shape(self):
        """(C, F, h, w) of one video; InputError unless the sizes fit the models."""
        s, base = self.settings, self.paths["pretrained_model_path"]
        unet, vae = part_config(base, "unet"), part_config(base, "vae")
        check_resolutions(self.config, unet)
        check_sizes(self.config, unet, vae)
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        return unet.get("in_channels", 4), s.L, s.H // factor, s.W // factor

    def _claim(self):
        claim_output(self.out, self.identity, ignore=NOT_IDENTITY)

    def _identity(self):
        """The resolved config as saved beside the videos; the prompts and the weights by their
        hashes.

        The kind of device belongs to it: the same seed gives other noise on a GPU than on a CPU.
        """
        named = {
            key: f"{_short(path)} ({fingerprint(path)[:16]})" if path else ""
            for key, path in self.paths.items()
        }
        rest = {
            key: value
            for key, value in vars(self.settings).items()
            if key not in (*cfg.WEIGHTS, "prompt")
        }
        # Said only where they matter: folders from before they existed can be resumed.
        if not rest["vae_tiling"]:
            del rest["vae_tiling"]
        if not self.safe_guidance:
            del rest["safe_guidance"], rest["safety_concept"]
        return {
            **named,
            **rest,
            "prompts": len(self.prompts),
            "prompts_sha256": digest(self.prompts),
            "device": self.device.type,
            "unet": self.config.unet.motion,
            "noise_scheduler_kwargs": self.config.scheduler,
            **({"guard": self.guarding.identity} if self.guarding else {}),
            "versions": versions(),
        }


def load_model(config, paths, device, tell=True):
    """MagicTime of a Config on `device`, fitted to the hardware; `paths`: of weight_paths."""
    scheduler = make_scheduler(config.scheduler, config.path, config.settings.steps)
    model = load_magictime(
        paths, scheduler, **config.unet.motion, dtype=getattr(torch, config.settings.dtype)
    )
    for key, what in model.report.items() if tell else ():
        print(f"{key}: {what} ({paths[key]})")
    check_length(config, model.unet.config.motion_max_seq_length)
    return hardware.fit(model, device, config.settings)


def weight_paths(config):
    """{YAML key: Path or ""}; InputError for a file that is not there."""
    paths = {}
    for key in cfg.WEIGHTS:
        value = getattr(config.settings, key)
        path = cfg.find(value) if value else ""
        if value and not path.exists():
            raise InputError(
                f"{config.path}: {key}={value}: not there {cfg.LOOKED}; {cfg.DOWNLOAD}"
            )
        paths[key] = path
    if not paths["pretrained_model_path"]:
        raise InputError(
            f"{config.path}: pretrained_model_path is empty, the base folder is needed"
        )
    if not config.unet.use_motion_module:
        paths["motion_module"] = ""
    return paths


def _existing(folder):
    """The folder, or the nearest one above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _need_writable(folder):
    there = _existing(folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(
            f"{folder}: cannot be made, {there} is not a folder that may be written (--save-path)"
        )


def output_folder(config, save_path):
    """--save-path as given; else the YAML's save_path, or outputs/{its name}, under MagicTime/."""
    if save_path:
        return Path(save_path)
    return cfg.MAGICTIME / (config.settings.save_path or Path("outputs") / config.path.stem)


def _short(path):
    """A path that stays the same when the repository moves."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _too_large(settings, device):
    """What to say when a batch does not fit in the device's memory."""
    if settings.batch_size > 1:
        return (
            f"batch_size={settings.batch_size}: does not fit on {device}; a smaller one "
            "gives the same videos"
        )
    half = "" if settings.dtype != "float32" else "dtype float16, "
    return (
        f"H={settings.H}, W={settings.W}, L={settings.L}: one video does not fit on "
        f"{device}; {half}a smaller size or a larger device is needed"
    )
