"""The detectors of one step, asked together where that is faster."""

import json

import torch

from lvd.data.transforms import normalise, resize_clips
from lvd.detectors.detector import predict
from lvd.detectors.precision import is_small, own_precision
from lvd.detectors.stacked import StackedDetectors, can_be_stacked
from lvd.utils.object_locks import lock_of
from lvd.utils.processes import one_thread

FEW = 16  # clips up to which stacked detectors are faster: small ones on a CPU, others on a GPU


class StepDetectors:
    """The detectors of one step, one per category.

    Those of one architecture are computed together, as one model with stacked weights, where that
    is faster: small ones always on a GPU and for a few clips on a CPU, larger ones for a few clips
    on a GPU, which waits for the calls of so short a pass (docs/results/full_size.txt). Otherwise
    they are computed one after another. The scores of the two ways agree to 1e-6.
    """

    def __init__(self, detectors):
        self.detectors = detectors
        self.device = next(detectors[0].model.parameters()).device
        self._stack = None

    def score(self, clips):
        """Return raw probabilities of unsafe, float32 [N, G] on the CPU.

        Args:
            clips: [N, C, F, H, W] of any floating type and size.
        """
        with one_thread(self.device.type == "cpu" and is_small(self.detectors[0].model)):
            if self._together(len(clips)):
                return self._score_together(clips)
            return torch.stack([predict(detector, clips) for detector in self.detectors], 1)

    def _together(self, clips):
        models = [detector.model for detector in self.detectors]
        is_few = clips <= FEW
        if len(models) == 1 or (self.device.type == "cpu" and not is_few):
            return False
        is_fit = is_small(models[0]) or (is_few and self.device.type != "cpu")
        configs = {
            json.dumps(model.config.to_dict(), sort_keys=True, default=str) for model in models
        }
        return len(configs) == 1 and is_fit and can_be_stacked(models[0].config)

    def _score_together(self, clips, batch_size=64):
        with lock_of(self):
            if self._stack is None:
                models = [detector.model for detector in self.detectors]
                self._stack = StackedDetectors(models, self.device)
        mean = self._statistics([detector.mean for detector in self.detectors])
        std = self._statistics([detector.std for detector in self.detectors])
        logits = []
        with own_precision(self._stack.module) as dtype:
            for part in clips.split(batch_size):
                resized = resize_clips(part.to(self.device), self._stack.config)
                inputs = normalise(resized, mean, std).to(dtype)
                logits.append(self._stack.logits(inputs))
            return torch.cat(logits, 1).softmax(-1)[..., 1].T.cpu()

    def _statistics(self, of_detectors):
        """[G][C] → float32 [G, 1, C] on the networks' device."""
        return torch.tensor(of_detectors, dtype=torch.float32, device=self.device)[:, None]
