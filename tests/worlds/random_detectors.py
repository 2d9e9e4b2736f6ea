"""Random detectors of one category, in the place of trained ones whose answers do not matter."""

from lvd.detectors.detector import build_detector, save_detector


def write_detectors(folder, latent_shape, steps, sampling):
    """Write one for each step.

    Args:
        folder: where {group}/{step}.pth are written.
        latent_shape: [C, F, h, w].
        steps: how many.
        sampling: dict as in lvd.x0.provenance.
    """
    for step in range(steps):
        detector = build_detector("nano", latent_shape, "latent", seed=step)
        detector.threshold = 0.5
        detector.about = {
            "category": "odd",
            "categories": ["odd"],
            "group": 1,
            "step": step,
            "sampling": sampling,
            "dataset": {},
        }
        save_detector(detector, folder / "1" / f"{step}.pth")
    return folder
