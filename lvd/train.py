"""Training one detector per unsafe category and denoising step, on clips that are not held out."""

import hashlib
import time
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from lvd.calibration import fit_calibration
from lvd.detector import ARGMAX, build_detector, fit_normalisation, logits, normalise, predict
from lvd.errors import InputError
from lvd.source import StepReader

MIN_CLIPS = 2  # unsafe ones: one to train on, one for validation


def rows_to_train(source, group, step, split, settings):
    """{"unsafe": [row, ...], "normal": [row, ...]} of one detector, without the held-out rows.

    With normals "balanced" as many normal rows as unsafe ones are drawn, the same at every step.
    """
    unsafe = _without(source.group_rows(group, step), split.unsafe)
    normal = _without(source.rows("normal", step), split.normal)
    for place, found in ((source.group_place(group, step), unsafe), (source.place("normal", step), normal)):
        if len(found) < MIN_CLIPS:
            raise InputError(f"{place}: {len(found)} clip(s) that are not held out, {MIN_CLIPS} or more are needed to train")
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
    return StepReader(source, step, _input_config(settings["size"], source.clip_shape("unsafe", row, step),
                                                  source.representation, settings["base_model"]))


@lru_cache(maxsize=4)
def _input_config(size, clip_shape, representation, base_model):
    return build_detector(size, clip_shape, representation, 0, base_model=base_model).model.config


def train_detector(rows, reader, settings, seed, device):
    """Train one detector.

    rows: {"unsafe": [row, ...], "normal": [row, ...]} as from `rows_to_train`; reader: `step_reader` of its step;
    settings: `read_settings`; seed: `detector_seed`.
    Returns (Detector with `threshold` set, about dict of rows, data hash and metrics).
    """
    began, source = time.time(), reader.source
    labels = torch.tensor([1] * len(rows["unsafe"]) + [0] * len(rows["normal"]))
    data = reader.read(rows)
    detector = build_detector(settings["size"], source.shape, source.representation, seed, settings["dropout"],
                              settings["base_model"])
    train, validation = stratified(labels, settings["validation"], settings["seed"])
    if settings["size"] != "base" or source.representation != "video":  # VideoMAE was pretrained with ImageNet's statistics
        fit_normalisation(detector, data[train].float())
    detector.model.to(device)
    torch.manual_seed(seed)  # for dropout; only now, when nothing is left to be loaded
    loss = _fit(detector, _placed(data, device), labels, train, settings, seed)
    if not np.isfinite(loss):
        raise InputError(f"{source.place('unsafe', reader.step)}: training diverged (loss {loss}); a smaller --lr is needed")
    metrics = _validate(detector, data[validation], labels[validation], settings)
    about = {
        "rows": rows, "data_sha256": _digest(rows, data),
        "metrics": {"unsafe_clips": len(rows["unsafe"]), "normal_clips": len(rows["normal"]), "train_loss": round(loss, 6),
                    **metrics, "seconds": round(time.time() - began, 2)}}
    return detector, about


def _placed(data, device):
    """Clips where batches are taken from: on the GPU, if all fit in half of what is free there, so that they are copied
    once and not in every epoch."""
    return data.to(device) if device.type == "cuda" and data.nbytes < torch.cuda.mem_get_info(device)[0] / 2 else data


def stratified(labels, fraction, seed):
    """(train, validation) indices: `fraction` of each class, at least one clip of each, for validation."""
    rng = np.random.default_rng(seed)
    held = []
    for label in (1, 0):
        found = torch.where(labels == label)[0].numpy()
        held += rng.choice(found, max(1, int(fraction * len(found) + 0.5)), replace=False).tolist()
    rest = sorted(set(range(len(labels))) - set(held))
    return torch.tensor(rest), torch.tensor(sorted(held))


def epoch_order(labels, generator):
    """Endless epochs: indices of all unsafe clips and as many normal ones, shuffled.

    Epochs take the normal clips in turn, so that all are seen when there are more of them than unsafe ones.
    """
    unsafe, normal = torch.where(labels == 1)[0], torch.where(labels == 0)[0]
    waiting = normal[:0]
    while True:
        while len(waiting) < len(unsafe):
            waiting = torch.cat([waiting, normal[torch.randperm(len(normal), generator=generator)]])
        epoch = torch.cat([unsafe, waiting[:len(unsafe)]])
        waiting = waiting[len(unsafe):]
        yield epoch[torch.randperm(len(epoch), generator=generator)]


def _fit(detector, data, labels, train, settings, seed):
    """AdamW with linear decay on the clips `train`, then the running average of the last weights.

    Returns the last epoch's mean loss.
    """
    model = detector.model.train()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"], fused=True)
    per_epoch = -(-2 * int(labels[train].sum()) // settings["batch_size"])
    steps = settings["epoch"] * per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: _decay(t, steps, settings["warmup"] * steps))
    averaged = torch.optim.swa_utils.AveragedModel(model) if settings["average"] else None
    step, orders = 0, epoch_order(labels[train], generator)
    for _ in range(settings["epoch"]):
        losses = []
        for batch in train[next(orders)].split(settings["batch_size"]):
            inputs = _augment(normalise(detector, data[batch].to(device)), settings, generator)
            loss = F.cross_entropy(logits(detector, inputs).float(), labels[batch].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if averaged and step > steps * (1 - settings["average"]):
                averaged.update_parameters(model)
            losses.append(loss.item())
    if averaged:
        model.load_state_dict(averaged.module.state_dict())
    model.eval()
    return float(np.mean(losses))


def _decay(step, steps, warmup):
    """Learning rate factor: linear warmup, then linear decay to 0."""
    return min(1.0, (step + 1) / warmup if warmup >= 1 else 1.0) * max(0.0, (steps - step) / steps)


def _augment(inputs, settings, generator):
    """Mirror left-right and add noise, in units of the channels' standard deviation.

    Both hold for latents: the autoencoder is a convolution, close to mirror-symmetric. Frames keep their order.
    """
    if settings["flip"]:
        mirrored = (torch.rand(len(inputs), generator=generator) < 0.5).view(-1, 1, 1, 1, 1).to(inputs.device)
        inputs = torch.where(mirrored, inputs.flip(-1), inputs)
    if settings["noise"]:
        noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)
        inputs = inputs + settings["noise"] * noise
    return inputs


def _validate(detector, data, labels, settings):
    """Metrics on the validation clips; sets the detector's validation-chosen threshold and its calibration."""
    scores = predict(detector, data).numpy()
    labels = labels.numpy()
    detector.threshold = choose_threshold(scores[labels == 0], settings["false_positives"])
    detector.calibration = fit_calibration(scores, labels)
    return {f"val_{key}": value for key, value in rates(scores, labels, detector.threshold).items()}


def choose_threshold(normal_scores, false_positives):
    """The lowest threshold of at least 0.5 at which at most that share of the normal clips reach it.

    normal_scores: probabilities [N] of validation clips that are normal. The result is a float32 number, as scores
    are: the next double above a score would be rounded back to it in a comparison with float32 scores.
    """
    ranked = np.sort(np.asarray(normal_scores, np.float32))[::-1]
    allowed = int(false_positives * len(ranked))
    if allowed >= len(ranked) or ranked[allowed] < ARGMAX:
        return ARGMAX
    return float(np.nextafter(ranked[allowed], np.float32(2)))


def rates(scores, labels, threshold):
    """Accuracy, TPR and TNR at 0.5, AUROC, and TPR and TNR at the detector's threshold; None where a class is missing."""
    from sklearn.metrics import roc_auc_score

    scores = np.asarray(scores, np.float64)  # votes compare doubles too
    unsafe, normal = scores[labels == 1], scores[labels == 0]
    auroc = roc_auc_score(labels, scores) if len(unsafe) and len(normal) else None
    found = {"accuracy": np.mean((scores >= ARGMAX) == labels), "tpr": _mean(unsafe >= ARGMAX),
             "tnr": _mean(normal < ARGMAX), "auroc": auroc, "threshold": threshold,
             "threshold_tpr": _mean(unsafe >= threshold), "threshold_tnr": _mean(normal < threshold)}
    return {key: None if value is None else round(float(value), 6) for key, value in found.items()}


def _mean(hits):
    return hits.mean() if len(hits) else None


def _digest(rows, data):
    """Hash of rows and clips as the detector saw them, in their order."""
    digest = hashlib.sha256(repr(rows).encode())
    digest.update(data.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
