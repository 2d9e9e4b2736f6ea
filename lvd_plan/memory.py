"""Memory of each step, of the GPU and of the host: estimates, except where it was measured."""

from dataclasses import dataclass
from math import prod

from lvd.data.clip_cache import HOLD
from lvd.training.chunks import training_bytes
from lvd.training.recipes import stackable
from lvd_plan.inputs import NORMAL, UNSAFE
from lvd_plan.networks import input_values, network_config, seen_tokens, weight_count

# Measured at full size (docs/results/full_size.txt): values that are alive at once.
UNET_VALUES = 27  # a latent of a pass and channel of the UNet's first level
DECODED_VALUES = 1050  # a pixel of the frames that are decoded together
KEPT = {"float32": 0.65, "bf16": 0.42}  # of what each layer computes, for its gradients
SCRIPT = 0.5e9  # bytes of a script with its libraries
CUDA_SCRIPT = 2.0e9  # on a GPU
CUDA_CONTEXT = 0.6e9  # bytes of a GPU that its driver takes for a process
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
    sampling = Memory(_sampling(inputs, workload), script + workload.sampler_bytes())
    clips, grid = _step_clips(inputs, counts), _grid(inputs, inputs.grid)
    names, shared = _training(inputs, inputs.names), _training(inputs, inputs.shared)
    step_of_all = _bytes_of_videos(inputs, inputs.shared, sum(counts.trained.values()))
    step_of_names = _bytes_of_videos(inputs, inputs.names, counts.trained[UNSAFE])
    held = counts.steps * step_of_all
    held_names = counts.steps * step_of_names
    weights = 4 * weight_count(network_config(inputs, inputs.grid))
    of_shared = Memory(shared, script + min(HOLD, held) + 3 * step_of_all)
    found = {
        "sample unsafe": sampling,
        "sample normal": sampling,
        "build_x0": Memory(_decoding(inputs, rates), script),
        "gen_eval_set": Memory(0, script),
        "build_eval_set": Memory(0, script),
        "train_mae": Memory(grid, script + clips),
        "names": Memory(names, script + min(HOLD, held_names) + 3 * step_of_names),
        "embed_model": Memory(weights * counts.groups, script + weights * counts.groups),
        "test_accuracy": Memory(0, script),
        "train shared": of_shared,
        "names, shared": Memory(names, script + min(HOLD, held_names) + 3 * step_of_names),
        "folds, shared": of_shared,
        "embed shared": Memory(shared // 4, script),
        "choose rule, shared": Memory(0, script),
        "test rule, shared": Memory(0, script),
    }
    if not on_gpu:
        return {step: Memory(0, int(each.host + each.gpu)) for step, each in found.items()}
    measured = rates.peak if rates else {}
    return {
        step: Memory(_on_gpu(measured.get(step, each.gpu)), int(each.host))
        for step, each in found.items()
    }


def _on_gpu(size):
    """With what the driver takes for a process that uses the GPU."""
    return int(size + CUDA_CONTEXT) if size else 0


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


def _training(inputs, settings):
    """Bytes of a network in training whose attention keeps no scores."""
    config = network_config(inputs, settings)
    layer = 12 * config.hidden_size + 3 * config.intermediate_size
    values = config.num_hidden_layers * seen_tokens(config, settings) * layer
    values += 4 * input_values(config)
    kept = KEPT[settings.precision] * settings.batch_size * values
    return int(4 * (kept + 6 * weight_count(config)))


def _step_clips(inputs, counts):
    """Bytes of a step's clips of all categories in float16, twice: the next ones are read."""
    videos = sum(counts.trained.values())
    largest = max(counts.of_groups()) + min(counts.trained[NORMAL], max(counts.of_groups()))
    return _bytes_of_videos(inputs, inputs.grid, 2 * videos + largest)


def _bytes_of_videos(inputs, settings, videos):
    """Bytes of one clip of each of so many videos, in float16."""
    return 2 * videos * input_values(network_config(inputs, settings))
