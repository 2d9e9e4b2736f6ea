"""Training the detectors of one unsafe category, one per denoising step, on clips that are not held
out."""

import hashlib
import time
from functools import lru_cache

import numpy as np
import torch

from lvd.data.clip_cache import StepReader
from lvd.data.transforms import normalise
from lvd.detectors.calibration import fit_calibration
from lvd.detectors.detector import build_detector, fit_normalisation, predict
from lvd.detectors.stacked import StackedDetectors
from lvd.errors import InputError
from lvd.evaluation.metrics import choose_threshold, false_positives_met, rates
from lvd.training.loop import SingleDetector, fit
from lvd.training.watch import Watch
from lvd.utils.files import raw_bytes

MIN_CLIPS = 2  # unsafe ones: one to train on, one for validation


def rows_to_train(source, group, step, split, settings):
    """{"unsafe": [row, ...], "normal": [row, ...]} of one detector, without the held-out rows.

    With normals "balanced" as many normal rows as unsafe ones are drawn, the same at every step.
    """
    unsafe = _without(source.group_rows(group, step), split.unsafe)
    normal = _without(source.rows("normal", step), split.normal)
    for place, found in (
        (source.group_place(group, step), unsafe),
        (source.place("normal", step), normal),
    ):
        if len(found) < MIN_CLIPS:
            raise InputError(
                f"{place}: {len(found)} clip(s) that are not held out, {MIN_CLIPS} or more are "
                "needed to train"
            )
    if settings["normals"] == "balanced" and len(normal) > len(unsafe):
        rng = np.random.default_rng([settings["seed"], group])
        normal = sorted(rng.choice(normal, len(unsafe), replace=False).tolist())
    return {"unsafe": unsafe, "normal": normal}


def _without(rows, held_out):
    held_out = set(held_out)
    return [row for row in rows if row not in held_out]


def detector_seed(seed, group, step):
    """A seed of its own for every detector, whatever was trained before it."""
    return int(np.random.SeedSequence([seed, group, step]).generate_state(1)[0])


def step_reader(source, step, row, settings):
    """StepReader of the clips of one step, at the size that the detectors of these settings take.

    row: an unsafe one that may be read, should the clips' shape not be known yet.
    """
    return StepReader(source, step, input_config(source, step, row, settings))


def input_config(source, step, row, settings):
    """VideoMAEConfig of the detectors of these settings; step, row: as of `step_reader`."""
    return _input_config(
        settings["size"],
        source.clip_shape("unsafe", row, step),
        source.representation,
        settings["base_model"],
    )


@lru_cache(maxsize=4)
def _input_config(size, clip_shape, representation, base_model):
    return build_detector(size, clip_shape, representation, 0, base_model=base_model).model.config


def train_detectors(rows, readers, seeds, settings, device, init=None):
    """Train the detectors of one category at some steps, all at once when there are several.

    rows: {"unsafe": [row, ...], "normal": [row, ...]} as from `rows_to_train`, alike at all steps;
    readers: `step_reader` of each step; seeds: `detector_seed` of each; settings: `read_settings`;
    init: Pretrained encoder that all start from. Yields (step, Detector with `threshold` set, about
    dict of rows, data hash, metrics and validation curve). InputError, after the others, for one
    that diverged.
    """
    began, source = time.time(), readers[0].source
    labels = torch.tensor([1] * len(rows["unsafe"]) + [0] * len(rows["normal"]))
    train, validation = stratified(labels, settings["validation"], settings["seed"])
    data = torch.stack([reader.read(rows) for reader in readers])  # [K, N, C, F, H, W]
    detectors = [
        build_detector(
            settings["size"],
            source.shape,
            source.representation,
            seed,
            settings["dropout"],
            settings["base_model"],
        )
        for seed in seeds
    ]
    if init:
        init.into(*(detector.model for detector in detectors))
    for detector, clips in zip(detectors, data, strict=True):
        if (
            settings["size"] != "base" or source.representation != "video"
        ):  # VideoMAE was pretrained with ImageNet's
            fit_normalisation(detector, clips[train].float())
    network = _network(detectors, settings, device)
    torch.manual_seed(seeds[0])  # for dropout; only now, when nothing is left to be loaded
    inputs_of = _inputs(detectors, _placed(data, device), device)
    watch = Watch(network, inputs_of, validation, labels[validation], settings)
    losses = fit(network, inputs_of, labels, train, settings, seeds, watch).tolist()
    network.store()
    seconds = round((time.time() - began) / len(readers), 2)
    for k, (reader, detector) in enumerate(zip(readers, detectors, strict=True)):
        if not np.isfinite(losses[k]):
            continue
        detector.model.eval()
        metrics = {
            "unsafe_clips": len(rows["unsafe"]),
            "normal_clips": len(rows["normal"]),
            "train_loss": round(losses[k], 6),
            **_validate(detector, data[k, validation], labels[validation], settings),
            "seconds": seconds,
        }
        yield (
            reader.step,
            detector,
            {
                "rows": rows,
                "data_sha256": _digest(rows, data[k]),
                "metrics": metrics,
                "curve": watch.curve(k),
            },
        )
    for reader, loss in zip(readers, losses, strict=True):
        if not np.isfinite(loss):
            raise InputError(
                f"{source.place('unsafe', reader.step)}: training diverged (loss {loss}); a "
                "smaller --lr is needed"
            )


def stackable(settings):
    """Whether detectors may be trained together: small ones, without dropout, whose masks are drawn
    for all at once."""
    return settings["size"] != "base" and not settings["dropout"]


def _network(detectors, settings, device):
    if stackable(settings) and settings["together"] != 1:
        return StackedDetectors([detector.model for detector in detectors], device)
    return SingleDetector(detectors[0].model, device)


def _inputs(detectors, data, device):
    """Function of places in the data, [K, B], to those clips, normalised: float32 [K, B, C, F, H,
    W] on `device`."""
    mean, std = (
        torch.tensor([getattr(detector, name) for detector in detectors], device=device)[:, None]
        for name in ("mean", "std")
    )
    each = torch.arange(len(detectors), device=data.device)[:, None]
    return lambda places: normalise(data[each, places.to(data.device)].to(device), mean, std)


def _placed(data, device):
    """Clips where batches are taken from: on the GPU, if all fit in half of what is free there, so
    that they are copied once and not in every epoch."""
    return (
        data.to(device)
        if device.type == "cuda" and data.nbytes < torch.cuda.mem_get_info(device)[0] / 2
        else data
    )


def stratified(labels, fraction, seed):
    """(train, validation) indices: `fraction` of each class, at least one clip of each, for
    validation."""
    rng = np.random.default_rng(seed)
    held = []
    for label in (1, 0):
        found = torch.where(labels == label)[0].numpy()
        held += rng.choice(found, max(1, int(fraction * len(found) + 0.5)), replace=False).tolist()
    rest = sorted(set(range(len(labels))) - set(held))
    return torch.tensor(rest), torch.tensor(sorted(held))


def _validate(detector, data, labels, settings):
    """Metrics on the validation clips; sets the detector's validation-chosen threshold and its
    calibration."""
    scores = predict(detector, data).numpy()
    labels = labels.numpy()
    detector.threshold = choose_threshold(scores[labels == 0], settings["false_positives"])
    detector.calibration = fit_calibration(scores, labels)
    met = false_positives_met(scores[labels == 0], detector.threshold, settings["false_positives"])
    return {
        **{f"val_{key}": value for key, value in rates(scores, labels, detector.threshold).items()},
        "val_false_positives_met": met,
    }


def _digest(rows, data):
    """Hash of rows and clips as the detector saw them, in their order."""
    digest = hashlib.sha256(repr(rows).encode())
    digest.update(raw_bytes(data))
    return digest.hexdigest()
