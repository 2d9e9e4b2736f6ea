"""Training the grid's detectors of one unsafe category, one for each of some denoising steps."""

import hashlib
import time
from functools import lru_cache

import numpy as np
import torch
from torch.optim.swa_utils import get_swa_multi_avg_fn

from lvd.data.clip_cache import StepReader
from lvd.data.transforms import normalise
from lvd.detectors.calibration import fit_calibration
from lvd.detectors.detector import build_detector, predict, set_normalisation
from lvd.detectors.stacked import SingleDetector, StackedDetectors
from lvd.errors import InputError
from lvd.evaluation.metrics import choose_threshold, false_positives_met, rates
from lvd.training.augment import Batch, Draws, augment
from lvd.training.loop import Training, precision, train
from lvd.training.recipes import stackable
from lvd.training.rows import stratified
from lvd.training.watch import Watch, mean_losses
from lvd.utils.files import raw_bytes


def detector_seed(seed, group, step):
    """Return a seed of its own for every detector, whatever was trained before it."""
    return int(np.random.SeedSequence([seed, group, step]).generate_state(1)[0])


def step_reader(source, step, row, settings):
    """Return a StepReader of the clips of one step, at the size that the detectors take.

    Args:
        source: of the clips.
        step: number of the denoising step.
        row: an unsafe row. Its clip is read if the clips' shape is not known yet.
        settings: GridSettings.
    """
    return StepReader(source, step, input_config(source, step, row, settings))


def input_config(source, step, row, settings):
    """Return the VideoMAEConfig of the detectors; step, row: see `step_reader`."""
    shape = source.clip_shape("unsafe", row, step)
    return _config_of_shape(settings.size, shape, source.representation, settings.base_model)


@lru_cache(maxsize=4)
def _config_of_shape(size, clip_shape, representation, base_model):
    return build_detector(size, clip_shape, representation, 0, base_model=base_model).model.config


def train_detectors(rows, readers, seeds, settings, device, init=None):
    """Train the detectors of one category at some steps, all at once when there are several.

    Args:
        rows: {"unsafe": [row, ...], "normal": [row, ...]} of `rows_to_train`, alike at all steps.
        readers: [K] `step_reader` of each step.
        seeds: [K] `detector_seed` of each.
        settings: GridSettings.
        device: torch.device.
        init: Pretrained encoder that all start from, None: random weights.

    Yields:
        (step, Detector with threshold and calibration, {"rows", "data_sha256", "metrics",
        "curve"}).

    Raises:
        InputError: after the others, for a detector that diverged.
    """
    began, source = time.time(), readers[0].source
    labels = torch.tensor([1] * len(rows["unsafe"]) + [0] * len(rows["normal"]))
    places, validation = stratified(labels, settings.validation, settings.seed)
    data = torch.stack([reader.read(rows) for reader in readers])  # [K, N, C, F, H, W]
    detectors = _untrained(source, seeds, settings, init)
    if settings.size != "base" or source.representation != "video":
        # VideoMAE-base was pretrained on frames with ImageNet's statistics and keeps them
        for detector, clips in zip(detectors, data, strict=True):
            set_normalisation(detector, clips[places].float())
    network = _network(detectors, settings, device)
    torch.manual_seed(seeds[0])  # for dropout; only now, when nothing is left to be loaded
    inputs_of = _inputs(detectors, _placed(data, device), device)
    watch = Watch(network, inputs_of, validation, labels[validation], settings)
    losses = train_network(network, inputs_of, labels, places, settings, seeds, watch).tolist()
    network.store()
    seconds = round((time.time() - began) / len(readers), 2)
    for k, (reader, detector) in enumerate(zip(readers, detectors, strict=True)):
        if np.isfinite(losses[k]):
            detector.model.eval()
            metrics = {
                "unsafe_clips": len(rows["unsafe"]),
                "normal_clips": len(rows["normal"]),
                "train_loss": round(losses[k], 6),
                **_validate(detector, data[k, validation], labels[validation], settings),
                "seconds": seconds,
            }
            about = {"rows": rows, "data_sha256": _digest(rows, data[k]), "metrics": metrics}
            yield reader.step, detector, {**about, "curve": watch.curve(k)}
    _need_finite(losses, readers)


def _untrained(source, seeds, settings, init):
    """The detectors before training, one for each seed."""
    detectors = [
        build_detector(
            settings.size,
            source.shape,
            source.representation,
            seed,
            settings.dropout,
            settings.base_model,
        )
        for seed in seeds
    ]
    if init:
        init.into(*(detector.model for detector in detectors))
    return detectors


def _need_finite(losses, readers):
    for reader, loss in zip(readers, losses, strict=True):
        if not np.isfinite(loss):
            raise InputError(
                f"{reader.source.place('unsafe', reader.step)}: training diverged (loss {loss}); "
                "a smaller --lr is needed"
            )


def train_network(network, inputs_of, labels, places, settings, seeds, watch=None):
    """Train the K detectors of a network.

    Args:
        network: StackedDetectors or SingleDetector.
        inputs_of: function of places in the data, [K, B], that returns those clips, normalised:
            float32 [K, B, C, F, H, W] on the network's device.
        labels: [N] of all clips, 1 for unsafe.
        places: of the clips to train on, in N.
        settings: GridSettings.
        seeds: K, of order, masks, mirroring and noise.
        watch: Watch, called after each epoch; its best weights are taken where settings say so.

    Returns:
        the last epoch's mean losses, [K] on the CPU.
    """
    draws = [Draws(labels[places], places, network.config, settings, seed) for seed in seeds]
    per_epoch = -(-2 * int(labels[places].sum()) // settings.batch_size)
    training = Training(network.module, settings, per_epoch, mean=get_swa_multi_avg_fn())
    device = training.device
    last = None

    def batches_of(epoch, first):
        for batches in zip(*(drawn.epoch() for drawn in draws), strict=True):
            yield Batch.stack(batches, device)

    def losses_of(batch):
        with precision(settings, device):
            inputs = augment(inputs_of(batch.rows), batch.mirrored, batch.noise, settings)
            logits = network.logits(inputs, batch.kept)
            losses = mean_losses(logits, labels[batch.rows].to(device), settings.smoothing)
        yield losses

    def after_epoch(epoch, losses):
        nonlocal last
        last = torch.stack(losses).mean(0)
        if watch:
            watch(epoch, last)

    for _ in train(training, batches_of, losses_of, after_epoch):
        pass
    training.take_average()
    if watch:
        watch.take_best()
    return last.cpu()


def _network(detectors, settings, device):
    if stackable(settings) and settings.together != 1:
        return StackedDetectors([detector.model for detector in detectors], device)
    return SingleDetector(detectors[0].model, device)


def _inputs(detectors, data, device):
    """Function of places in the data, [K, B], that returns those clips, normalised.

    They are float32 [K, B, C, F, H, W] on `device`. data: [K, N, C, F, H, W].
    """
    mean = torch.tensor([detector.mean for detector in detectors], device=device)
    std = torch.tensor([detector.std for detector in detectors], device=device)
    detector_of = torch.arange(len(detectors), device=data.device)[:, None]

    def inputs_of(places):
        clips = data[detector_of, places.to(data.device)]
        return normalise(clips.to(device), mean[:, None], std[:, None])

    return inputs_of


def _placed(data, device):
    """The clips on the GPU, if all fit in half of what is free there: they are copied once."""
    if device.type == "cuda" and data.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return data.to(device)
    return data


def _validate(detector, clips, labels, settings):
    """Set the detector's threshold and calibration on validation clips; returns metrics."""
    scores, labels = predict(detector, clips).numpy(), labels.numpy()
    normal, aim = scores[labels == 0], settings.false_positives
    detector.threshold = choose_threshold(normal, aim)
    detector.calibration = fit_calibration(scores, labels)
    metrics = rates(scores, labels, detector.threshold)
    return {
        "val_unsafe_clips": int((labels == 1).sum()),
        "val_normal_clips": int((labels == 0).sum()),
        **{f"val_{name}": value for name, value in metrics.items()},
        "val_false_positives_met": false_positives_met(normal, detector.threshold, aim),
    }


def _digest(rows, data):
    """Hash of rows and clips as the detector saw them, in their order."""
    digest = hashlib.sha256(repr(rows).encode())
    digest.update(raw_bytes(data))
    return digest.hexdigest()
