"""The work of each step of reproduce.sh, in operations and in files, and how long it takes."""

from dataclasses import dataclass, field, replace
from math import ceil, prod

from lvd.data.clip_cache import HOLD
from lvd.training.chunks import PAYS
from lvd.training.watch import POINTS, VALIDATION_AT_ONCE
from lvd_plan import flops
from lvd_plan.counts import FOLDS
from lvd_plan.disk import clip_size, recording_size
from lvd_plan.inputs import NORMAL, UNSAFE
from lvd_plan.networks import (
    clip_shape,
    input_values,
    layers,
    network_config,
    seen_tokens,
    weight_count,
)
from MagicTime.utils.config import RECORDINGS
from MagicTime.utils.video import STRIP_STEPS

ALL, ONE = "all", "one"  # GPUs that a step works on
# Times that a script takes to start: LIGHT for one that loads neither diffusers nor transformers;
# more where figures are drawn, too.
LIGHT, TRAINING, TABLES, CHOOSING, TESTING = 0.4, 1.3, 1.7, 1.3, 1.2
UNET_LAYERS = 24  # of two passes: as many as a GPU is told in the time of a small UNet's step
LOOKED_AT = 64  # clips that are scored at once, of one step


@dataclass(frozen=True)
class Passes:
    """Passes of a network.

    Attributes:
        kind: of `Rates.reached`, such as "unet float16".
        operations: floating-point operations of all of them.
        layers: of all of them together: a GPU cannot be told their work faster.
    """

    kind: str
    operations: float
    layers: float = 0

    def seconds(self, rates):
        """Return how long they take."""
        return max(rates.seconds(self.kind, self.operations), rates.host["layer"] * self.layers)

    def times(self, factor):
        """Return so many times as many Passes."""
        return replace(self, operations=factor * self.operations, layers=factor * self.layers)


@dataclass(frozen=True)
class Work:
    """What a step does.

    Attributes:
        passes: [Passes].
        host: {kind of `Rates.host`: how many}.
        ahead: the same, of files that a thread reads while a GPU computes.
        gpus: ALL, or ONE.
        starts: how many times a script is started, LIGHT for one that computes nothing.
    """

    passes: list = field(default_factory=list)
    host: dict = field(default_factory=dict)
    ahead: dict = field(default_factory=dict)
    gpus: str = ONE
    starts: float = 1

    def seconds(self, rates, gpus=1, lanes=1, left=1.0):
        """Return how long it takes.

        Args:
            rates: Rates.
            gpus: how many GPUs there are.
            lanes: processes that share the work on one device.
            left: share of the work that is still to be done.
        """
        if not left:
            return 0.0
        computing = sum(each.seconds(rates) for each in self.passes)
        before, meanwhile = (
            sum(rates.host[kind] * count for kind, count in counts.items())
            for counts in (self.host, self.ahead)
        )
        both = computing + meanwhile if rates.is_cpu else max(computing, meanwhile)
        shared = lanes * (gpus if self.gpus == ALL else 1)
        return self.starts * rates.host["start"] + left * (before + both) / shared


class Workload:
    """The Work of the steps of reproduce.sh.

    Args:
        inputs: Inputs.
        counts: Counts.
    """

    def __init__(self, inputs, counts):
        self.inputs, self.counts = inputs, counts
        self.settings = inputs.sampling.settings
        self.sampler = flops.count_sampler(inputs.models, inputs.latents)
        self.is_video = inputs.data.representation == "video"

    def of(self, model):
        """Return {step: Work}; model: "grid", "shared" or "both"."""
        work = {f"sample {kind}": self._sampling(kind) for kind in (UNSAFE, NORMAL)}
        grid, shared = model in ("grid", "both"), model in ("shared", "both")
        if grid:
            work["build_x0"] = self._build()
        work["gen_eval_set"] = Work(starts=LIGHT)
        if grid:
            held_out = sum(self.counts.held_out.values()) * self.counts.steps
            work["build_eval_set"] = Work(host=self._reading(held_out), starts=LIGHT)
            work |= self._grid()
        if shared:
            work |= self._shared()
        return work

    def sampler_bytes(self):
        """Return the bytes of the sampler's weights on its device."""
        return self.sampler.weights * _bytes_of(self.settings.dtype)

    def _sampling(self, kind):
        settings, videos = self.settings, self.inputs.videos[kind]
        dtype = settings.dtype
        guided = 1 if settings.guidance_scale > 1 else 0.5
        strips = (
            min(self.inputs.strips[kind], videos) * len(STRIP_STEPS) if settings.save_predx_0 else 0
        )
        recorded = sum(bool(getattr(settings, key)) for key in RECORDINGS)
        denoising = settings.steps * guided * self.sampler.step
        steps = settings.steps * ceil(videos / settings.batch_size)
        passes = [
            Passes(
                f"unet {dtype}", videos * (2 * self.sampler.text + denoising), UNET_LAYERS * steps
            ),
            Passes(f"vae {dtype}", (videos + strips) * self.sampler.decode),
        ]
        host = {
            "write_pixel": videos * settings.L * settings.H * settings.W,
            "write_byte": recorded * recording_size(self.inputs, videos),
            "load_byte": self.sampler_bytes(),
        }
        return Work(passes, host, gpus=ALL)

    def _build(self):
        clips, links = self.counts.clips, self.counts.links
        host = {"write_byte": clips * clip_size(self.inputs)}
        if self._is_mp4:
            host["write_pixel"] = clips * prod(clip_shape(self.inputs)[1:])
        host["write_file"] = clips + links / 10
        starts = 1 if self.is_video else LIGHT
        return Work(self._decoding(clips), host, gpus=ALL, starts=starts)

    @property
    def _is_mp4(self):
        return self.is_video and self.inputs.data.video_format == "mp4"

    def _reading(self, clips):
        """{kind: how many} of reading clips of build_x0.py."""
        host = {"read_file": clips}
        if self.is_video:
            host["read_pixel"] = clips * prod(clip_shape(self.inputs)[1:])
        return host

    def _grid(self):
        counts, settings = self.counts, self.inputs.grid
        config = network_config(self.inputs, settings)
        work = {"train_mae": self._grid_training(config)}
        if counts.has_names:
            work["names"] = self._names(from_recordings=False)
        work["embed_model"] = self._grid_scoring(config, sum(counts.held_out.values()))
        work["test_accuracy"] = Work(starts=TABLES)
        if self.inputs.grid_folds and counts.has_folds:
            work["folds"] = self._grid_folds(config)
            work["choose rule, detectors"] = Work(starts=CHOOSING)
            work["test rule, detectors"] = Work(starts=TESTING)
        return work

    def _grid_training(self, config, share=1.0):
        """Work of training all detectors on a share of the videos."""
        counts, settings = self.counts, self.inputs.grid
        one_pass = flops.detector_flops(config)[0]
        trained = flops.detector_flops(config, seen_tokens(config, settings))[1]
        kind = f"grid {settings.size} {settings.precision}"
        operations = looked_at = batches = looks = 0
        for unsafe in counts.of_groups():
            unsafe, normal = share * unsafe, share * counts.trained[NORMAL]
            if settings.normals == "balanced":
                normal = min(normal, unsafe)
            validation = [max(1, int(settings.validation * n + 0.5)) for n in (unsafe, normal)]
            of_epoch = 2 * (unsafe - validation[0])
            times = min(settings.epoch, POINTS) + 1
            operations += settings.epoch * of_epoch * trained
            looked_at += times * sum(validation) * one_pass
            batches += settings.epoch * ceil(of_epoch / settings.batch_size)
            looks += times * ceil(sum(validation) / VALIDATION_AT_ONCE)
        steps, each = counts.steps, layers(config)
        chunks = steps if settings.size == "base" else ceil(steps / PAYS["cuda"])
        passes = [
            Passes(kind, steps * operations, 2 * each * batches * chunks),
            Passes(kind, steps * looked_at, each * looks * chunks),
        ]
        ahead = self._reading(share * sum(counts.trained.values()) * steps)
        host = {"choose": counts.groups * steps}
        if settings.size == "base":
            host["load_byte"] = counts.groups * steps * 4 * weight_count(config)
        return Work(passes, host, ahead, gpus=ALL, starts=TRAINING)

    def _grid_scoring(self, config, videos):
        """Work of all detectors' looks at so many videos."""
        counts, steps = self.counts, self.counts.steps
        host = self._reading(videos * steps)
        host["load_byte"] = counts.groups * steps * 4 * weight_count(config)
        operations = counts.groups * videos * steps * flops.detector_flops(config)[0]
        looks = counts.groups * steps * ceil(videos / LOOKED_AT) * layers(config)
        passes = [Passes(f"grid {self.inputs.grid.size} float32", operations, looks)]
        return Work(passes, host)

    def _grid_folds(self, config):
        training = self._grid_training(config, (FOLDS - 1) / FOLDS)
        scoring = self._grid_scoring(config, sum(self.counts.trained.values()))
        return replace(_together([training] * FOLDS + [scoring]), gpus=ALL, starts=TRAINING)

    def _names(self, from_recordings):
        settings = self.inputs.names
        work = self._for_all_steps(settings, self.counts.trained[UNSAFE], from_recordings)
        return replace(work, starts=0)  # by the same command as the detectors beside it

    def _shared(self):
        counts, settings = self.counts, self.inputs.shared
        videos = sum(counts.trained.values())
        work = {"train shared": self._for_all_steps(settings, videos, True)}
        if counts.has_names:
            work["names, shared"] = self._names(from_recordings=True)
        if counts.has_folds:
            work["folds, shared"] = self._folds(settings, videos)
        work["embed shared"] = self._scoring(settings, sum(counts.held_out.values()))
        if counts.has_folds:
            work["choose rule, shared"] = Work(starts=CHOOSING)
        work["test rule, shared"] = Work(starts=TESTING)
        return work

    def _folds(self, settings, videos):
        of_fold = self._for_all_steps(settings, videos * (FOLDS - 1) / FOLDS, True)
        return _together([of_fold] * FOLDS + [self._scoring(settings, videos)])

    def _scoring(self, settings, videos):
        """Work of looking once at all steps of so many recorded videos."""
        config = network_config(self.inputs, settings)
        clips = videos * self.counts.steps
        looks = self.counts.steps * ceil(videos / LOOKED_AT) * layers(config)
        kind = f"shared {settings.size} float32"
        passes = [Passes(kind, clips * flops.detector_flops(config)[0], looks)]
        return Work(passes + self._decoding(clips), self._recorded(clips))

    def _for_all_steps(self, settings, videos, from_recordings):
        """Work of training one network for all steps on so many videos."""
        config = network_config(self.inputs, settings)
        steps, epochs = self.counts.steps, settings.epoch
        validation = videos * settings.validation
        training = (videos - validation) * steps * epochs
        looked_at = validation * steps * (epochs + 1)
        each = layers(config)
        trained = flops.detector_flops(config, seen_tokens(config, settings))[1]
        batches = epochs * ceil(training / epochs / settings.batch_size)
        looks = steps * (epochs + 1) * ceil(validation / LOOKED_AT)
        passes = [
            Passes(
                f"shared {settings.size} {settings.precision}",
                training * trained,
                2 * each * batches,
            ),
            Passes(
                f"shared {settings.size} float32",
                looked_at * flops.detector_flops(config)[0],
                each * looks,
            ),
        ]
        clips, size = videos * steps, 2 * input_values(config)
        host = {"scan_byte": clips * size}
        host["choose"] = steps * self.counts.groups
        seen, is_held = training + looked_at, clips * size <= HOLD
        ahead = {} if is_held else self._clips(seen, from_recordings)
        if is_held:
            host["gather_byte"] = seen * size
        first = self._clips(clips, from_recordings)
        passes += self._decoding(clips + (0 if is_held else seen)) if from_recordings else []
        return Work(passes, _sum([host, first]), ahead, starts=TRAINING)

    def _clips(self, clips, from_recordings):
        """{kind: how many} of reading so many clips, of a recording or of build_x0.py."""
        return self._recorded(clips) if from_recordings else self._reading(clips)

    def _decoding(self, clips):
        kind = f"vae {decode_dtype(self.inputs)}"
        return [Passes(kind, clips * self.sampler.decode)] if self.is_video else []

    def _recorded(self, clips):
        """{kind: how many} of reading so many clips of a recording."""
        size = clips * 2 * prod(self.inputs.latents)
        return {"load_byte": size, "gather_byte": size}


def decode_dtype(inputs):
    """Return in what the VAE decodes video clips."""
    return inputs.data.decode_dtype


def _bytes_of(dtype):
    return 4 if dtype == "float32" else 2


def _together(works):
    """Return Works that one command does one after the other."""
    passes = [each for work in works for each in work.passes]
    host, ahead = (_sum([getattr(work, name) for work in works]) for name in ("host", "ahead"))
    return Work(passes, host, ahead, starts=0)


def _sum(parts):
    """Add mappings of numbers, key by key."""
    total = {}
    for part in parts:
        for key, number in part.items():
            total[key] = total.get(key, 0) + number
    return total
