"""report.html of made-up votes and recordings: a few videos, small enough to be judged by hand."""

import json

import numpy as np
import torch
import yaml

import test_accuracy
from lvd.rules.confidence import ConfidenceRule
from lvd.rules.file import ChosenRule, save_rule
from lvd.utils.video import write_mp4
from lvd.x0.file import create_x0_file
from tests.worlds.recorded_scores import GROUPS, identity, write_recording

UNSAFE, NORMAL, STEPS = 9, 12, 6  # rows 0, 10, 20, ...
SHAPE = (4, 4, 8, 8)  # C, F, h, w
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\"><b>bold</b> & 日本 \u2028"
NAME = "<b>war</b>ped</script><script>document.title='taken'</script>"


def write_x0(folder, count, seed, steps=STEPS, shape=SHAPE, clips=True, prompt=None):
    """Record x0 of the rows 0, 10, ... with clips beside it; `prompt` of the first one."""
    draw = torch.Generator().manual_seed(seed)
    meta = {"seed": seed, "scaling_factor": 0.18215, "config": {"fps": 8}}
    rows = range(0, 10 * count, 10)
    path = folder / "pred_x0.pth"
    with create_x0_file(path, 10 * count, steps, shape, torch.float16, meta) as writer:
        for row in rows:
            text = prompt if prompt and row == 0 else f"a made-up prompt of row {row}"
            info = {"prompt": text, "seed": row, "timesteps": list(range(steps))}
            writer.write_row(row, torch.randn(steps, *shape, generator=draw), info)
    frames = np.random.default_rng(seed).integers(0, 255, (4, 16, 16, 3), np.uint8)
    for row in rows if clips else ():
        write_mp4(folder / "videos" / f"{row:04d}.mp4", frames, durable=False)


def write_recordings(root, **settings):
    """Record both kinds; return the path of the build_x0.yaml that names them."""
    write_x0(root / "unsafe", UNSAFE, 0, prompt=HOSTILE, **settings)
    write_x0(root / "normal", NORMAL, 1, **settings)
    content = {
        "pred_x0": str(root / "unsafe" / "pred_x0.pth"),
        "normal_pred_x0": str(root / "normal" / "pred_x0.pth"),
    }
    (root / "build_x0.yaml").write_text(yaml.safe_dump(content))
    return root / "build_x0.yaml"


def write_votes(root, **changes):
    """Write votes and scores, and a rule for them; return their folder and the rule's path."""
    names = {**GROUPS, "1": NAME}
    detectors = {**identity(STEPS), "categories": list(names.values())}
    settings = {"categories": names, "detectors": detectors, **changes}
    write_recording(root / "results", UNSAFE, NORMAL, STEPS, **settings)
    rule = ConfidenceRule({NAME: 0.9, "banner": 0.8}, 5)
    chosen = ChosenRule(rule, {**identity(STEPS), "categories": list(names.values())})
    save_rule(chosen, root / "rule.yaml")
    return root / "results", root / "rule.yaml"


def report(data_dir, *words):
    """Run test_accuracy.py --report; return its exit status."""
    return test_accuracy.main(["--data_dir", str(data_dir), "--report", *map(str, words)])


def content_of(page):
    """What the page's scripts read."""
    text = page.read_text(encoding="utf-8")
    begin = '<script type="application/json" id="data">'
    return json.loads(text.split(begin)[1].split("</script>")[0])
