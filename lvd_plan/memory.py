"""Memory of each step, of the GPU and of the host: estimates, except where it was measured."""

from dataclasses import dataclass
from math import prod

from lvd.data.clip_cache import HOLD
from lvd.detectors.videomae import token_count
from lvd.training.chunks import training_bytes
from lvd.training.parts import clips_at_once
from lvd.training.recipes import stackable
from lvd_plan.inputs import NORMAL, UNSAFE
from lvd_plan.networks import input_values, network_config, seen_tokens, weight_count
from lvd_plan.work import LOOKED_AT

# Measured at full size (docs/results/full_size.txt): values that are alive at once.
UNET_VALUES = 27  # a latent of a pass and channel of the UNet's first level
DECODED_VALUES = 1050  # a pixel of the frames that are decoded together
KEPT = {"float32": 0.65, "bf16": 0.42}  # of what each layer computes, for its gradients
SCRIPT = 0.65e9  # bytes of a script with its libraries
CUDA_SCRIPT = 2.0e9  # on a GPU
LOADED = 1.4  # of the weights' bytes while they are read
# Bytes of a GPU that its driver takes for a process, and torch's room for what it has let go: so
# 4.88 GiB of tensors take 6.19 (docs/results/plan_check.txt).
CUDA_CONTEXT, ROOM = 0.8e9, 1.1
SHARE_DECODED = 4  # build_x0.py decodes as many frames at once as fit in this part of the GPU


@dataclass(frozen=True)
class Memory:
    """Bytes that a step takes.

    Attributes:
        gpu: of the GPU; host: of the machine.
    """

    gpu: int
    host: int


def memory_of(inputs, counts, workload, rates):
    """Return {step: Memory}.

    Args:
        inputs: Inputs; counts: Counts; workload: Workload.
        rates: Rates, or None.
    """
    on_gpu = rates is None or not rates.is_cpu
    script = CUDA_SCRIPT if on_gpu else SCRIPT
    weights = workload.sampler_bytes()
    sampling = Memory(_sampling(inputs, workload), script + LOADED * weights)
    clips, grid = _step_clips(inputs, counts), _grid(inputs, inputs.grid)
    names, shared = (
        _training(inputs, settings, counts.steps * videos)
        for settings, videos in (
            (inputs.names, counts.trained[UNSAFE]),
            (inputs.shared, sum(counts.trained.values())),
        )
    )
    held_out = sum(counts.held_out.values())
    step_of_all = _bytes_of_videos(inputs, inputs.shared, sum(counts.trained.values()))
    step_of_names = _bytes_of_videos(inputs, inputs.names, counts.trained[UNSAFE])
    held = counts.steps * step_of_all
    held_names = counts.steps * step_of_names
    weights = 4 * weight_count(network_config(inputs, inputs.grid))
    of_shared = Memory(shared, script + min(HOLD, held) + 3 * step_of_all)
    of_grid = Memory(grid, script + clips)
    looking = _looking(inputs, inputs.grid, held_out)
    looking = Memory(weights * counts.groups + looking, script + weights * counts.groups)
    video = inputs.data.representation == "video"
    found = {
        "sample unsafe": sampling,
        "sample normal": sampling,
        "build_x0": Memory(_decoding(inputs, rates), script if video else SCRIPT),
        "gen_eval_set": Memory(0, SCRIPT),
        "build_eval_set": Memory(0, SCRIPT),
        "train_mae": of_grid,
        "names": Memory(names, script + min(HOLD, held_names) + 3 * step_of_names),
        "embed_model": looking,
        "folds": of_grid,
        "train shared": of_shared,
        "names, shared": Memory(names, script + min(HOLD, held_names) + 3 * step_of_names),
        "folds, shared": of_shared,
        "embed shared": Memory(_looking(inputs, inputs.shared, held_out), script),
    }
    for step in workload.of("both"):
        found.setdefault(step, Memory(0, SCRIPT))  # tables and figures
    if not on_gpu:
        return {step: Memory(0, int(each.host + each.gpu)) for step, each in found.items()}
    measured = rates.peak if rates else {}
    return {
        step: Memory(_on_gpu(measured.get(step, each.gpu)), int(each.host))
        for step, each in found.items()
    }


def _on_gpu(size):
    """With what the driver takes for a process that uses the GPU, and torch's room."""
    return int(ROOM * size + CUDA_CONTEXT) if size else 0


def _sampling(inputs, workload):
    settings = inputs.sampling.settings
    itemsize = 4 if settings.dtype == "float32" else 2
    channels = inputs.models.unet["block_out_channels"][0]
    positions = prod(inputs.latents[1:])
    passes = 2 * settings.batch_size
    denoising = UNET_VALUES * channels * positions * passes * itemsize
    frames = 2 if max(settings.H, settings.W) > 128 else 16
    decoding = DECODED_VALUES * frames * settings.H * settings.W * itemsize
    return workload.sampler_bytes() + max(denoising, decoding)


def _decoding(inputs, rates):
    if inputs.data.representation != "video":
        return 0
    settings = inputs.sampling.settings
    of_clip = 4 * DECODED_VALUES * settings.L * settings.H * settings.W
    if rates and rates.memory:
        return min(of_clip, rates.memory // SHARE_DECODED)
    return of_clip


def _grid(inputs, settings):
    """Bytes of a detector in training; small ones are trained together as far as they fit."""
    if not stackable(settings) or settings.together == 1:
        return _training(inputs, settings)
    return training_bytes(network_config(inputs, settings), settings) * (settings.together or 1)


def _training(inputs, settings, clips=None):
    """Bytes of a network in training whose attention keeps no scores; clips: of an epoch."""
    config = network_config(inputs, settings)
    layer = 12 * config.hidden_size + 3 * config.intermediate_size
    values = config.num_hidden_layers * seen_tokens(config, settings) * layer
    values += 4 * input_values(config)
    batch = min(clips_at_once(config, settings), clips or settings.batch_size)
    kept = KEPT[settings.precision] * batch * values
    return int(4 * (kept + 6 * weight_count(config)))


def _looking(inputs, settings, videos):
    """Bytes of a network and of what it computes of one step's clips, without gradients."""
    config = network_config(inputs, settings)
    layer = 12 * config.hidden_size + 3 * config.intermediate_size
    values = 4 * input_values(config) + token_count(config) * layer
    return 4 * (min(LOOKED_AT, videos) * values + weight_count(config))


def _step_clips(inputs, counts):
    """Bytes of a step's clips of all categories in float16, twice: the next ones are read."""
    videos = sum(counts.trained.values())
    largest = max(counts.of_groups()) + min(counts.trained[NORMAL], max(counts.of_groups()))
    return _bytes_of_videos(inputs, inputs.grid, 2 * videos + largest)


def _bytes_of_videos(inputs, settings, videos):
    """Bytes of one clip of each of so many videos, in float16."""
    return 2 * videos * input_values(network_config(inputs, settings))
