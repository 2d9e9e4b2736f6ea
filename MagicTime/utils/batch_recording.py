"""The recordings of a run: their files, and what one batch of videos puts into them."""

import torch

from lvd.utils.config import versions
from lvd.x0.file import create_x0_file
from lvd.x0.schedulers import describe_scheduler
from MagicTime.utils.config import RECORDINGS
from MagicTime.utils.output_folder import MAY_DIFFER
from MagicTime.utils.schedulers import DDIM


def open_recordings(plan, model, processes, stack):
    """Open the files that a run records into.

    The main process makes them, the others join.

    Args:
        plan: MagicTime.utils.sampling_plan.Plan.
        model: the loaded MagicTime.
        processes: lvd.utils.processes.Processes that sample.
        stack: ExitStack that will close the files.

    Returns:
        {setting (of RECORDINGS): lvd.x0.file.X0Writer}.
    """
    meta = recording_meta(plan, model, plan.identity)

    def opened(path):
        return create_x0_file(
            path,
            len(plan.prompts),
            plan.settings.steps,
            plan.latent_shape,
            plan.x0_dtype,
            meta,
            process=(processes.rank, processes.count),
        )

    if not processes.is_main:
        processes.barrier()
        return {key: stack.enter_context(opened(path)) for key, path in plan.recordings.items()}
    plan.need_space()
    writers = {key: stack.enter_context(opened(path)) for key, path in plan.recordings.items()}
    processes.barrier()
    return writers


def recording_meta(plan, model, identity):
    """Return what a recording's sidecar says of what made it.

    Args:
        plan: MagicTime.utils.sampling_plan.Plan.
        model: the loaded MagicTime.
        identity: of the run, as of the plan.
    """
    config = {key: identity[key] for key in identity if key not in MAY_DIFFER}
    for key in RECORDINGS.keys() & config.keys():
        config[key] = bool(config[key])  # not the path: a recording is the same wherever it lies
    meta = {
        "config": config,
        "x0_mode": plan.settings.x0_mode,
        "scaling_factor": model.vae.config.scaling_factor,
        "prompts_sha256": identity["prompts_sha256"],
        "versions": versions(),
    }
    if plan.settings.scheduler != DDIM:  # of which the config says all: recordings can be resumed
        meta["scheduler"] = describe_scheduler(plan.config.make_scheduler())
    return meta


class BatchRecording:
    """x0 (and x_t) of one batch's videos, on the CPU until the batch is finished.

    Each tensor that it keeps is [S, B, C, F, h, w]: step, wanted video, channel, frame, height,
    width.

    Args:
        writers: {setting: lvd.x0.file.X0Writer}.
        wanted: rows of the recording that the batch is to fill.
        steps: S.
        latent_shape: (C, F, h, w).
        dtype: of the files.
        device: torch.device that samples.
    """

    def __init__(self, writers, wanted, steps, latent_shape, dtype, device):
        self._writers = writers
        self._wanted = wanted
        self._dtype = dtype
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._steps = dict.fromkeys(wanted, 0)  # recorded of each row
        self._rows = None  # sampled at the last step
        self._places = None  # of the wanted rows among them
        shape = (steps, len(wanted), *latent_shape)
        # Pinned, so that copies need not wait for the GPU.
        self._kept = {
            key: torch.empty(shape, dtype=dtype, pin_memory=self._on_gpu) for key in writers
        }

    def step(self, step, values, rows):
        """Keep one step.

        Args:
            step: its number, from 0.
            values: {setting: [n, C, F, h, w]}, one video for each of `rows`.
            rows: rows of the videos that are still sampled; those not wanted are left out.
        """
        here = [row for row in self._wanted if row in rows]
        if rows != self._rows:
            self._rows = list(rows)
            self._places = slice(None) if here == rows else self._places_of(here, rows)
        for row in here:
            self._steps[row] = step + 1
        for key, kept in self._kept.items():
            videos = values[key][self._places].to(self._dtype)
            if len(here) == len(self._wanted):
                kept[step].copy_(videos, non_blocking=self._on_gpu)
                continue
            for row, video in zip(here, videos, strict=True):
                kept[step, self._wanted.index(row)].copy_(video, non_blocking=self._on_gpu)

    def _places_of(self, here, rows):
        return torch.tensor([rows.index(row) for row in here], device=self._device)

    def write(self, finished, infos):
        """Write the batch into the files.

        Args:
            finished: rows that are called whole.
            infos: [what the sidecar says of each of them]. The other wanted rows are written as
                far as they were sampled.
        """
        places = [self._wanted.index(row) for row in finished]
        for key, writer in self._writers.items():
            for place, row in enumerate(self._wanted):
                if row not in finished:
                    writer.write_seen(row, self._kept[key][: self._steps[row], place])
            if finished:
                videos = [self._kept[key][:, place] for place in places]
                writer.write_rows(finished, videos, infos)
