"""One sampling run: prompts and a folder that is filled batch by batch, by one process or several.

A run that was stopped goes on: what is there already is not made again.
"""

from contextlib import ExitStack

import torch

from lvd.errors import InputError
from lvd.utils.processes import Processes
from MagicTime.utils import hardware
from MagicTime.utils.batch import sample_batch
from MagicTime.utils.batch_recording import open_recordings, recording_meta
from MagicTime.utils.model_config import check_length
from MagicTime.utils.more_prompts import grow_recordings, need_same_beginning
from MagicTime.utils.progress import Progress, is_done
from MagicTime.utils.prompts import words_cut
from MagicTime.utils.sampling_plan import make_plan
from MagicTime.utils.seeds import DrawnSeeds
from MagicTime.utils.verdicts import Verdicts
from MagicTime.utils.weights.load import load_magictime


class Run:
    """A sampling run: its plan is checked, then `load`, then `sample`.

    Args:
        config: MagicTime.utils.config.Config.
        prompts: [Prompt], one a row.
        out: path of the output folder.
        device: torch.device that samples.
        processes: lvd.utils.processes.Processes that sample together; None: this one alone.
        model: a loaded MagicTime; None: `load` loads one.
        guarding: MagicTime.utils.guarded.Guarding that stops unsafe videos, or None.
    """

    def __init__(self, config, prompts, out, device, processes=None, model=None, guarding=None):
        self.plan = make_plan(config, prompts, out, device, guarding)
        self.processes = processes or Processes()
        self.model = model
        self.seeds = None  # known when the folder is claimed
        self.verdicts = Verdicts(self.plan.folder.path)

    def load(self):
        """Load the weights, if no model was given, and claim the folder.

        Returns:
            The model.
        """
        plan = self.plan
        folder = plan.folder
        if self.model is None:
            self.model = load_model(plan.config, plan.weights, plan.device, self.processes.is_main)
        drawn = DrawnSeeds(folder.path)
        try:
            if self.processes.is_main:
                folder.lock()
                self._claim(drawn)
                self._tell_cut_prompts()
            self.processes.barrier()
            self.seeds = drawn.fill(plan.seeds)
            if plan.guarding:
                plan.guarding.vae = self.model.vae
        except BaseException:
            folder.unlock()
            raise
        return self.model

    def _claim(self, drawn):
        """Make the folder this run's; one with fewer prompts is brought up to date, config.yaml
        last: when that is broken off, the same command does it again."""
        plan = self.plan
        before = need_same_beginning(plan)
        if before is None:
            plan.folder.claim(plan.identity)
        drawn.draw(plan.seeds, before)
        grow_recordings(plan, lambda identity: recording_meta(plan, self.model, identity))
        if before is not None and before < len(plan.prompts):
            plan.folder.claim_for_more(plan.identity)

    def sample(self, limit=None):
        """Make the videos and recordings that are missing.

        Args:
            limit: only among the first `limit` prompts; None: all.

        Returns:
            How many videos were made, by all processes together.
        """
        count = min(limit or len(self.plan.prompts), len(self.plan.prompts))
        try:
            return self._fill(count)
        finally:
            self.plan.folder.unlock()

    def _fill(self, count):
        with ExitStack() as stack:
            writers = open_recordings(self.plan, self.model, self.processes, stack)
            told = self.verdicts.read()
            missing = [row for row in range(count) if not is_done(self.plan, row, writers, told)]
            # Process 0 says what is missing: another machine may see a file some seconds later.
            missing = set(self.processes.gather(missing if self.processes.is_main else None)[0])
            progress = Progress(self, writers, count - len(missing), count)
            stack.enter_context(progress)
            for rows in self.processes.share(self._batches(missing, count)):
                wanted = [row for row in rows if row in missing]
                sample_batch(self, rows, wanted, writers, told, progress)
                progress.batch(len(wanted))
        self.processes.barrier()  # all files are closed
        return len(missing)

    def _batches(self, missing, count):
        """Return [rows] of the batches that hold a missing row.

        Batches begin at multiples of the batch size: a resumed run, or one of more processes,
        repeats the batches of an unbroken one and gives the same bits.
        """
        size = self.plan.settings.batch_size
        starts = sorted({row // size * size for row in missing})
        return [list(range(start, min(start + size, count))) for start in starts]

    def count_done(self):
        """Return how many of the run's prompts are done."""
        with ExitStack() as stack:
            writers = open_recordings(self.plan, self.model, Processes(), stack)
            told = self.verdicts.read()
            rows = range(len(self.plan.prompts))
            return sum(is_done(self.plan, row, writers, told) for row in rows)

    def filmstrips(self, count):
        """Draw the filmstrips of the first `count` finished prompts that have none.

        Returns:
            [their folder], or [] where nothing is recorded.
        """
        from MagicTime.utils.filmstrips import draw_filmstrips

        plan = self.plan
        if not plan.settings.save_predx_0:
            raise InputError("--filmstrips: shows recorded x0, save_predx_0 must not be false")
        recording = plan.recordings["save_predx_0"]
        return draw_filmstrips(plan.folder.path, recording, self.model.vae, count, plan.device)

    def _tell_cut_prompts(self):
        """Say which prompts are too long: of these the text encoder reads the beginning."""
        prompts = self.plan.prompts
        cut = {row: words_cut(self.model, prompt.text) for row, prompt in enumerate(prompts)}
        cut = {row: words for row, words in cut.items() if words}
        if cut and len(prompts) > 1:  # --human tells of a single one
            row, words = next(iter(cut.items()))
            print(
                f"{len(cut)} of {len(prompts)} prompts are longer than the text encoder reads; "
                f"the first is row {row}, left out: {words[:80]}"
            )
        if safe := self.plan.safe_guidance:
            words = words_cut(self.model, safe.concept)
            if words:
                print(
                    f"safety_concept is longer than the text encoder reads; left out: {words[:80]}"
                )


def load_model(config, paths, device, tell=True):
    """Load MagicTime and put it on a device.

    Args:
        config: MagicTime.utils.config.Config.
        paths: of `weight_paths`.
        device: torch.device.
        tell: print what each weight file gave.

    Returns:
        MagicTime.utils.weights.load.MagicTime.
    """
    dtype = getattr(torch, config.settings.dtype)
    model = load_magictime(paths, config.make_scheduler(), **config.unet.motion, dtype=dtype)
    if tell:
        for key, what in model.report.items():
            print(f"{key}: {what} ({paths[key]})")
    check_length(config, model.unet.config.motion_max_seq_length)
    return hardware.place_on_device(model, device, config.settings)
