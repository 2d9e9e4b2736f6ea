"""The work of each step of reproduce.sh, in operations and in files, and how long it takes."""

from dataclasses import dataclass, field, replace
from math import ceil, prod

from lvd.data.clip_cache import HOLD
from lvd.training.chunks import PAYS
from lvd.training.watch import POINTS
from lvd_plan import flops
from lvd_plan.counts import FOLDS
from lvd_plan.disk import clip_size, recording_size
from lvd_plan.inputs import NORMAL, UNSAFE
from lvd_plan.networks import clip_shape, input_values, network_config, seen_tokens, weight_count
from MagicTime.utils.config import RECORDINGS
from MagicTime.utils.video import STRIP_STEPS

ALL, ONE = "all", "one"  # GPUs that a step works on
LIGHT = 0.4  # of the time that a script takes to start which loads diffusers or transformers


@dataclass(frozen=True)
class Work:
    """What a step does.

    Attributes:
        operations: {kind of `Rates.reached`: floating-point operations}.
        host: {kind of `Rates.host`: how many}.
        gpus: ALL, or ONE.
        calls: {kind of `Rates.reached`: passes of a network}, which a GPU cannot be told faster.
        overlaps: whether files are read while the GPU computes.
        starts: how many times a script is started, LIGHT for one that computes nothing.
    """

    operations: dict
    host: dict
    calls: dict = field(default_factory=dict)
    gpus: str = ONE
    overlaps: bool = False
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
        computing = sum(
            max(rates.seconds(kind, count), rates.host["call"] * self.calls.get(kind, 0))
            for kind, count in self.operations.items()
        )
        others = sum(rates.host[kind] * count for kind, count in self.host.items())
        overlaps = self.overlaps and not rates.is_cpu
        both = max(computing, others) if overlaps else computing + others
        shared = lanes * (gpus if self.gpus == ALL else 1)
        return self.starts * rates.host["start"] + left * both / shared


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
        work["gen_eval_set"] = Work({}, {}, starts=LIGHT)
        if grid:
            held_out = sum(self.counts.held_out.values()) * self.counts.steps
            work["build_eval_set"] = Work({}, self._reading(held_out), starts=LIGHT)
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
        operations = {
            f"unet {dtype}": videos
            * (2 * self.sampler.text + settings.steps * guided * self.sampler.step),
            f"vae {dtype}": (videos + strips) * self.sampler.decode,
        }
        calls = {f"unet {dtype}": 2 * settings.steps * ceil(videos / settings.batch_size)}
        pixels = settings.L * settings.H * settings.W
        host = {
            "write_pixel": videos * pixels,
            "write_byte": recorded * recording_size(self.inputs, videos),
            "load_byte": self.sampler_bytes(),
        }
        return Work(operations, host, calls, gpus=ALL)

    def _build(self):
        clips, links = self.counts.clips, self.counts.links
        host = {"write_byte": clips * clip_size(self.inputs)}
        operations = {}
        if self.is_video:
            operations["vae float32"] = clips * self.sampler.decode
        if self._is_mp4:
            host["write_pixel"] = clips * prod(clip_shape(self.inputs)[1:])
        host["write_file"] = clips + links / 10
        return Work(operations, host, starts=1 if self.is_video else LIGHT)

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
        inputs, counts, settings = self.inputs, self.counts, self.inputs.grid
        config = network_config(inputs, settings)
        one_pass, trained = (
            flops.detector_flops(config)[0],
            flops.detector_flops(config, seen_tokens(config, settings))[1],
        )
        kind = f"grid {settings.size} {settings.precision}"
        operations = batches = 0
        for unsafe in counts.of_groups():
            normal = counts.trained[NORMAL]
            if settings.normals == "balanced":
                normal = min(normal, unsafe)
            validation = [max(1, int(settings.validation * n + 0.5)) for n in (unsafe, normal)]
            of_epoch = 2 * (unsafe - validation[0])
            looks = min(settings.epoch, POINTS) + 1
            operations += settings.epoch * of_epoch * trained
            operations += looks * sum(validation) * one_pass
            batches += settings.epoch * ceil(of_epoch / settings.batch_size)
        clips = sum(counts.trained.values()) * counts.steps
        chunks = counts.steps if settings.size == "base" else ceil(counts.steps / PAYS["cuda"])
        work = {
            "train_mae": Work(
                {kind: counts.steps * operations},
                self._reading(clips) | self._loads_base(settings, counts.groups * counts.steps),
                {kind: 2 * batches * chunks},
                gpus=ALL,
                overlaps=True,
            )
        }
        if counts.has_names:
            work["names"] = self._names(from_recordings=False)
        held_out = sum(counts.held_out.values()) * counts.steps
        host = self._reading(held_out)
        host["load_byte"] = counts.groups * counts.steps * 4 * weight_count(config)
        scoring = {f"grid {settings.size} float32": counts.groups * held_out * one_pass}
        return work | {"embed_model": Work(scoring, host), "test_accuracy": Work({}, {})}

    def _loads_base(self, settings, detectors):
        if settings.size != "base":
            return {}
        return {"load_byte": detectors * 4 * weight_count(network_config(self.inputs, settings))}

    def _names(self, from_recordings):
        settings = self.inputs.names
        return self._for_all_steps(settings, self.counts.trained[UNSAFE], from_recordings)

    def _shared(self):
        counts, settings = self.counts, self.inputs.shared
        videos = sum(counts.trained.values())
        work = {"train shared": self._for_all_steps(settings, videos, True)}
        if counts.has_names:
            work["names, shared"] = replace(self._names(from_recordings=True), starts=0)
        if counts.has_folds:
            work["folds, shared"] = self._folds(settings, videos)
        work["embed shared"] = self._scoring(settings, sum(counts.held_out.values()))
        if counts.has_folds:
            work["choose rule, shared"] = Work({}, {}, starts=2)
        work["test rule, shared"] = Work({}, {}, starts=2)
        return work

    def _folds(self, settings, videos):
        of_fold = self._for_all_steps(settings, videos * (FOLDS - 1) / FOLDS, True)
        scoring = self._scoring(settings, videos)
        parts = [{key: FOLDS * n for key, n in of_fold.operations.items()}, scoring.operations]
        files = [{key: FOLDS * n for key, n in of_fold.host.items()}, scoring.host]
        calls = {key: FOLDS * n for key, n in of_fold.calls.items()}
        return Work(_sum(parts), _sum(files), calls, overlaps=True, starts=0)

    def _scoring(self, settings, videos):
        """Work of looking once at all steps of so many recorded videos."""
        config = network_config(self.inputs, settings)
        clips = videos * self.counts.steps
        kind = f"shared {settings.size} float32"
        operations = {kind: clips * flops.detector_flops(config)[0]}
        return Work(_sum([operations, self._decoding(clips)]), self._recorded(clips))

    def _for_all_steps(self, settings, videos, from_recordings):
        """Work of training one network for all steps on so many videos."""
        config = network_config(self.inputs, settings)
        steps = self.counts.steps
        validation = videos * settings.validation
        training = (videos - validation) * steps * settings.epoch
        looks = validation * steps * (settings.epoch + 1)
        seen = seen_tokens(config, settings)
        operations = training * flops.detector_flops(config, seen)[1]
        operations += looks * flops.detector_flops(config)[0]
        clips = videos * steps
        is_held = 2 * clips * input_values(config) <= HOLD
        reads = clips if is_held else clips + training + looks
        kind = f"shared {settings.size} {settings.precision}"
        calls = {kind: 2 * (training + looks) / settings.batch_size}
        if not from_recordings:
            return Work({kind: operations}, self._reading(reads), calls, overlaps=True, starts=0)
        compute = _sum([{kind: operations}, self._decoding(reads)])
        return Work(compute, self._recorded(reads), calls, overlaps=True)

    def _decoding(self, clips):
        return {"vae float32": clips * self.sampler.decode} if self.is_video else {}

    def _recorded(self, clips):
        """{kind: how many} of reading so many clips of a recording."""
        return {"load_byte": clips * 2 * prod(self.inputs.latents)}


def _bytes_of(dtype):
    return 4 if dtype == "float32" else 2


def _sum(parts):
    """Add mappings of numbers, key by key."""
    total = {}
    for part in parts:
        for key, number in part.items():
            total[key] = total.get(key, 0) + number
    return total
