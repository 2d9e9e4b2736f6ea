"""rule.yaml files, and what rules say of recorded scores by plain loops."""

import csv
import math

from lvd.utils.files import save_yaml
from lvd.voting import decided
from tests.worlds.recorded_scores import THRESHOLD, identity

STEPS = 6


def write_rule(path, settings, **changes):
    content = {"format": "lvd rule 1", **settings, "detectors": identity(STEPS)} | changes
    save_yaml({key: value for key, value in content.items() if value is not None}, path)
    return ["--rule", str(path)]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def stop_by_hand(settings, says, calibrated):
    """(step at which one video is stopped or None, steps looked at); says and calibrated:
    {category: [value] * S}."""
    votes = [max(each) for each in zip(*says.values())]
    before = dict.fromkeys(calibrated, 0.0)
    for step in range(settings.get("eta") or settings["horizon"]):
        if settings["family"] == "vote":
            answer = decided(votes[: step + 1], settings["lambda"], settings["eta"])
            if answer:
                return (step if answer == "unsafe" else None), step + 1
            continue
        for name, values in calibrated.items():
            odds = math.log(values[step] / (1 - values[step]))
            before[name] = settings.get("forgetting", 0) * before[name] + odds
            bound = settings["bound"]
            bound = bound[name] if isinstance(bound, dict) else bound
            if before[name] >= math.log(bound / (1 - bound)):
                return step, step + 1
    return None, settings.get("eta") or settings["horizon"]


def judged_by_hand(settings, scores):
    """[(video, is unsafe, step or None, steps looked at)]."""
    names = scores["categories"]
    videos = []
    for label, kind in (("1", "unsafe"), ("0", "normal")):
        by_group = scores["calibrated"][label]
        for row in by_group["1"]:
            of_video = {names[group]: by_group[group][row] for group in names}
            says = {name: [v >= THRESHOLD for v in values] for name, values in of_video.items()}
            stop = stop_by_hand(settings, says, of_video)
            videos.append((f"{kind} {row}", label == "1", *stop))
    return videos
