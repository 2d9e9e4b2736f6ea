"""The plan of a study: a row for each step of reproduce.sh, and what has to be said beside them."""

import os
from dataclasses import replace

from lvd.errors import InputError
from lvd_plan.counts import FOLDS
from lvd_plan.disk import disk_of, need_disk, peak_of
from lvd_plan.inputs import NORMAL, UNSAFE, is_many_lanes
from lvd_plan.memory import memory_of
from lvd_plan.table import Row, size_text, time_text
from lvd_plan.there import There, look
from lvd_plan.work import ALL, Workload


class StudyPlan:
    """What the steps of reproduce.sh make and take.

    Args:
        inputs: Inputs.
        counts: Counts.
        model: "grid", "shared" or "both".
        workload: Workload.

    Attributes:
        there: {step: There}.
        pieces: [Piece] of the disk.
    """

    def __init__(self, inputs, counts, model, workload=None):
        self.inputs, self.counts, self.model = inputs, counts, model
        self.there = look(inputs, counts)
        self.pieces = disk_of(inputs, counts, model, self.there)
        self.workload = workload or Workload(inputs, counts)
        self.work = self.workload.of(model)

    def rows(self, rates, gpus):
        """Return [Row].

        Args:
            rates: Rates; None: hours are not known.
            gpus: how many GPUs there are.
        """
        added = {piece.step: piece.left for piece in self.pieces}
        memory = memory_of(self.inputs, self.counts, self.workload, rates)
        rows = []
        for step in self.work:
            one, several = (self.seconds(step, rates, count) for count in (1, gpus))
            rows.append(
                Row(
                    step,
                    self._makes(step),
                    _done(self.there.get(step)),
                    added.get(step, 0),
                    memory[step].gpu,
                    memory[step].host,
                    one,
                    several,
                )
            )
        return rows

    def seconds(self, step, rates, gpus=1):
        """Return the seconds of a step on so many GPUs; None without Rates."""
        if rates is None:
            return None
        left = self.there[step].left if step in self.there else 1.0
        lanes = self._lanes(step) if rates.is_cpu else 1
        return self.work[step].seconds(rates, gpus, lanes, left)

    def _lanes(self, step):
        """Processes that reproduce.sh starts for a step on a CPU."""
        cores = os.cpu_count() or 1
        if step.startswith("sample"):
            return cores if is_many_lanes(self.inputs) else 1
        return min(self.inputs.grid.workers, cores) if step in ("train_mae", "folds") else 1

    def _makes(self, step):
        counts, steps = self.counts, self.counts.steps
        held_out, trained = sum(counts.held_out.values()), sum(counts.trained.values())
        kind = self.inputs.data.representation
        if kind == "video":
            kind = f"{self.inputs.data.video_format} video"
        size = self.inputs.grid.size
        return {
            "sample unsafe": f"{self.inputs.videos[UNSAFE]:,} videos, x0 of {steps} steps",
            "sample normal": f"{self.inputs.videos[NORMAL]:,} videos, x0 of {steps} steps",
            "build_x0": f"{counts.clips:,} {kind} clips",
            "gen_eval_set": f"{held_out:,} videos held out",
            "build_eval_set": f"{held_out * steps:,} links to clips",
            "train_mae": f"{counts.groups * steps:,} detectors of size {size}",
            "names": f"size {self.inputs.names.size}, names categories",
            "embed_model": f"votes on {held_out:,} held-out videos",
            "test_accuracy": "tables and figures",
            "train shared": f"one of size {self.inputs.shared.size} for all steps",
            "names, shared": f"size {self.inputs.names.size}, names categories",
            "folds, shared": f"{FOLDS} trainings, scores of {trained:,} videos",
            "folds": f"{FOLDS} trainings of all, scores of {trained:,} videos",
            "embed shared": f"votes on {held_out:,} held-out videos",
            "choose rule, shared": "a rule",
            "test rule, shared": "tables and figures",
            "choose rule, detectors": "a rule",
            "test rule, detectors": "tables and figures",
        }[step]

    def notes(self, rates, gpus):
        """Return [sentence] about the rows."""
        notes = [self._about_disk(), *self._about_room(), *self._about_hours(rates, gpus)]
        notes += self._about_memory(rates)
        notes += self._assumed()
        notes += [f"{step}: {there.note}" for step, there in self.there.items() if there.note]
        return notes

    def _about_disk(self):
        folders = {str(piece.path) for piece in self.pieces}
        text = f"disk: {size_text(peak_of(self.pieces))} more at most, in {len(folders)} folders"
        if self.model != "shared":
            files = self.counts.clips + self.counts.links
            held = sum(self.counts.held_out.values()) * self.counts.steps
            text += f"; {files + held:,} small files and links of clips"
        estimates = [piece for piece in self.pieces if piece.is_estimate and piece.left]
        if estimates:
            text += "; mp4 files may take half or double of what is counted for them"
        return text

    def _about_room(self):
        """Of a study that does not exist yet: whether this machine's disk would hold it."""
        try:
            need_disk(self.pieces)
        except InputError as error:
            return [f"this machine's disk is too small: {error}"]
        return []

    def _about_hours(self, rates, gpus):
        if rates is None:
            return [
                "time: not known; --calibrate measures this machine in about a minute, --card "
                "NAME takes a card's data sheet"
            ]
        notes = [f"time: {rates.source}; {rates.sure}"]
        if rates.is_cpu and (lanes := {s: n for s in self.work if (n := self._lanes(s)) > 1}):
            notes.append(
                f"on this machine's {os.cpu_count()} cores, by several processes: "
                f"{', '.join(lanes)}; all else by one"
            )
        if gpus > 1:
            shared = [step for step, work in self.work.items() if work.gpus == ALL]
            notes.append(
                f"on {gpus} GPUs: {', '.join(shared)} share their work where they are started by "
                f"accelerate launch --multi_gpu --num_processes {gpus}; all else runs on one. "
                "reproduce.sh starts one process: run these commands first, it goes on behind them"
            )
        return notes + self._about_dtype(rates)

    def _about_dtype(self, rates):
        """What sampling in half precision would save."""
        dtype = self.inputs.sampling.settings.dtype
        kinds = {"unet float32": "unet float16", "vae float32": "vae float16"}
        if dtype != "float32" or rates.is_cpu or not set(kinds.values()) <= set(rates.reached):
            return []
        now = later = 0.0
        for step in ("sample unsafe", "sample normal"):
            left = self.there[step].left
            for each in self.work[step].passes:
                now += left * each.seconds(rates)
                later += left * replace(each, kind=kinds[each.kind]).seconds(rates)
        if now - later < 60:
            return []
        return [
            f"sampling computes in float32 ({time_text(now)}); dtype: float16 in the sampling YAML "
            f"would take {time_text(later)}"
        ]

    def _about_memory(self, rates):
        if rates is None or not rates.memory:
            return []
        memory = memory_of(self.inputs, self.counts, self.workload, rates)
        notes = []
        for step in self.work:
            needed = memory[step].gpu
            if needed > rates.memory:
                notes.append(
                    f"memory: {step} needs about {size_text(needed)} of the GPU, {rates.device} "
                    f"has {size_text(rates.memory)}; {_advice(step)}"
                )
        return notes

    def _assumed(self):
        notes = []
        if not self.counts.is_assumed and self.inputs.prompts is None:
            notes.append(
                f"labels: {self.counts.labels.path} ({self.counts.labelled:,} of "
                f"{self.inputs.videos[UNSAFE]:,} videos unsafe)"
            )
        if self.counts.is_assumed:
            share = f"{self.counts.labelled:,} of {self.inputs.videos[UNSAFE]:,} videos unsafe"
            sizes = ", ".join(str(len(column)) for column in self.counts.labels.columns)
            notes.append(f"labels: assumed in the shares of the paper's: {share} ({sizes})")
        if missing := self.inputs.models.missing:
            notes.append(
                f"weights: {len(missing)} files or folders are not there ({missing[0]} ...); sizes "
                "are those of Stable Diffusion 1.5; python MagicTime/prepare_weights/download.py "
                "fetches them"
            )
        return notes


def _advice(step):
    if step.startswith("sample"):
        return "dtype float16, a smaller batch_size, or cpu_offload helps"
    return "precision bf16 or a smaller batch_size helps"


def _done(there: There | None):
    if there is None or not there.done:
        return "-"
    return "all" if there.done >= there.total else f"{there.done:,} of {there.total:,}"
