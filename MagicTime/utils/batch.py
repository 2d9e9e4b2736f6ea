"""One batch of videos, from prompts to files: sampled, decoded, recorded, judged by the guard."""

import torch

from lvd.errors import InputError
from lvd.x0.levels import levels_of
from lvd.x0.sidecar import numbered_name
from MagicTime.utils import hardware
from MagicTime.utils.batch_recording import BatchRecording
from MagicTime.utils.pipeline import decode, sample, to_bytes
from MagicTime.utils.verdicts import PREVIEWS, verdict_line
from MagicTime.utils.video import video_kinds, write_video


def sample_batch(run, rows, wanted, writers, told, progress):
    """Sample one batch and write its videos, recordings and verdicts.

    Under a guard the verdict of a video is written before the video: none lies there without one.
    Then come the recordings, which call the videos whole, then the verdicts of stopped videos,
    which say that their rows are done. A process that is killed in between makes the batch again.

    Args:
        run: MagicTime.utils.run.Run, loaded.
        rows: rows of the prompts to sample together. A batch has the same rows whether or not
            some of their videos exist: so its videos have the same bits.
        wanted: those of `rows` whose files are missing; only these are written.
        writers: {setting: lvd.x0.file.X0Writer}.
        told: {row: line of verdicts.jsonl} from before.
        progress: MagicTime.utils.progress.Progress.
    """
    plan = run.plan
    settings = plan.settings
    recording = BatchRecording(
        writers, wanted, settings.steps, plan.latent_shape, plan.x0_dtype, plan.device
    )
    guarded = None
    if plan.guarding:
        levels = levels_of(plan.config.make_scheduler())
        scale = settings.guidance_scale
        guarded = plan.guarding.batch(rows, wanted, settings.steps, levels, scale)
    sampled = list(rows)  # those that the guard has not stopped
    timesteps = []
    pulls = {}  # step → where the prompt pulls x0; of the last step alone

    def on_guidance(step, direction):
        pulls.clear()
        pulls[step] = direction

    def on_step(step, timestep, x0, latents):
        timesteps.append(timestep)
        progress.step(step, settings.steps)
        values = {"save_predx_0": x0, "save_predx_t": latents, "save_guidance": pulls.get(step)}
        recording.step(step, values, sampled)
        keep = guarded.step(step, x0) if guarded else None
        if keep is not None:
            sampled[:] = [sampled[place] for place in keep]
        return keep

    try:
        with hardware.kernels(settings):
            latents = _latents(
                run, rows, on_step, on_guidance if "save_guidance" in writers else None
            )
            finished = [row for row in wanted if row in sampled]
            if guarded:
                finished = guarded.allowed(finished)
                _write_verdicts(run, guarded, finished, told)
            for row in finished:
                frames = _frames(run, row, latents[sampled.index(row)])
                path = plan.folder.video(plan.prompts[row])
                write_video(path, frames, settings.fps, video_kinds(settings.format))
    except torch.OutOfMemoryError as error:
        raise InputError(_too_large(settings, plan.device)) from error
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)  # the copies of the recording are complete
    recording.write(finished, [_info(run, row, timesteps) for row in finished])
    if guarded:
        stopped = [row for row in wanted if row not in finished]
        _write_verdicts(run, guarded, stopped, told)


def _latents(run, rows, on_step, on_guidance):
    """Sample the latents [B, C, F, h, w] of the prompts `rows`."""
    plan = run.plan
    settings = plan.settings
    return sample(
        run.model,
        [plan.prompts[row].text for row in rows],
        [plan.negatives[row] for row in rows],
        [run.seeds[row] for row in rows],
        settings.L,
        settings.H,
        settings.W,
        settings.steps,
        settings.guidance_scale,
        settings.x0_mode,
        on_step,
        plan.safe_guidance,
        on_guidance,
    )


def _frames(run, row, latents):
    """Decode one video: latents [C, F, h, w] → uint8 [F, H, W, 3].

    Values that are not finite are an InputError: the video would be black.
    """
    pixels = decode(run.model.vae, latents, device=run.plan.device)
    for name, values in (("latents", latents), ("decoded pixels", pixels)):
        if not torch.isfinite(values).all():
            raise InputError(
                f"row {row} ({run.plan.prompts[row].name}): {name} that are not finite in dtype "
                f"{run.plan.settings.dtype}; bfloat16 or float32, or a smaller guidance_scale, "
                "is needed"
            )
    return to_bytes(pixels)


def _info(run, row, timesteps):
    """Return what the recording's sidecar says of a finished row."""
    prompt = run.plan.prompts[row]
    info = {"prompt": prompt.text, "seed": run.seeds[row], "timesteps": timesteps}
    if prompt.name != numbered_name(row):
        info["video"] = prompt.name
    return info


def _write_verdicts(run, guarded, rows, told):
    """Draw the previews and append to verdicts.jsonl what it does not say yet."""
    lines = []
    for row in rows:
        prompt = run.plan.prompts[row]
        result = guarded.results[row]
        if guarded.rgb:
            path = run.plan.folder.path / PREVIEWS / f"{prompt.name}.png"
            guarded.preview(path, row, f"{result.verdict}: {prompt.text}")
        line = verdict_line(row, prompt, result, guarded.dry_run) | guarded.later(row)
        before = told.get(row, {})
        if any(before.get(key) != line[key] for key in ("verdict", "stopped")):
            lines.append(line)
    run.verdicts.append(lines)


def _too_large(settings, device):
    """Say what helps when a batch does not fit in the device's memory."""
    if settings.batch_size > 1:
        return (
            f"batch_size={settings.batch_size}: does not fit on {device}; a smaller one gives the "
            "same videos"
        )
    half = "" if settings.dtype != "float32" else "dtype float16, "
    return (
        f"H={settings.H}, W={settings.W}, L={settings.L}: one video does not fit on {device}; "
        f"{half}a smaller size or a larger device is needed"
    )
