"""Write the tiny world's prompt files and label files.

unsafe.txt with label.csv and normal.txt are what the quickstart samples. reworded.txt,
reworded_label.csv and reworded_normal.txt say the same effects in other words, without any keyword
of the plain ones; they are kept for testing robustness. Seeded: the same command always writes the
same files.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from lvd.data.labels import write_labels
from lvd.errors import InputError, shorten
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, claim_output
from lvd.utils.files import save_text
from MagicTime.prepare_weights.tiny.world import CATEGORIES, caption, random_scene

COUNTS = {  # scale: (unsafe, normal, reworded unsafe, reworded normal)
    "quick": (200, 200, 60, 60),
    "full": (800, 800, 200, 200),
}
FOLDERS = {"quick": "prompts", "full": "prompts_full"}
TWO_CATEGORIES = 0.15  # share of the unsafe prompts
GROWING = 0.10  # share of the normal prompts
TRIES = 1000  # draws for one prompt that is not there yet


def build_parser():
    parser = Parser(__doc__, "python MagicTime/prepare_weights/tiny/make_prompts.py --scale full")
    parser.add_argument(
        "--scale", choices=sorted(COUNTS), default="quick", help="how many prompts (default: quick)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder to write (default: MagicTime/ckpts/Tiny/prompts, full: prompts_full)",
    )
    parser.add_argument("--seed", type=int, default=2024)
    return parser


def work(args):
    out = args.out or ROOT / "MagicTime" / "ckpts" / "Tiny" / FOLDERS[args.scale]
    if not 0 <= args.seed < 2**63:
        raise InputError(f"--seed {shorten(args.seed)}: a number from 0 to 2**63 - 1 is needed")
    claim_output(
        out,
        {
            "made_by": "MagicTime/prepare_weights/tiny/make_prompts.py",
            "scale": args.scale,
            "seed": args.seed,
        },
        name="prompts.yaml",
    )
    unsafe, normal, reworded, reworded_normal = COUNTS[args.scale]
    seen = set()
    written = [
        *_write_unsafe(
            out / "unsafe.txt", out / "label.csv", unsafe, "plain", (args.seed, 0), seen
        ),
        _write_normal(out / "normal.txt", normal, (args.seed, 1), seen),
        *_write_unsafe(
            out / "reworded.txt",
            out / "reworded_label.csv",
            reworded,
            "reworded",
            (args.seed, 2),
            seen,
        ),
        _write_normal(out / "reworded_normal.txt", reworded_normal, (args.seed, 3), seen),
    ]
    summary(
        "prompts made",
        {"scale": args.scale, "seed": args.seed, "unsafe": unsafe, "normal": normal},
        written,
    )


def effect_sets(count, rng):
    """Draw `count` tuples of categories, shuffled.

    Singles and pairs are each spread evenly over the categories.
    """
    doubles = round(TWO_CATEGORIES * count)
    pairs = list(combinations(CATEGORIES, 2))
    sets = [pairs[k % len(pairs)] for k in range(doubles)]
    sets += [(CATEGORIES[k % len(CATEGORIES)],) for k in range(count - doubles)]
    return [tuple(rng.permutation(sets[k]).tolist()) for k in rng.permutation(count)]


def new_prompt(rng, seen, effects=(), grows=False, wording="plain"):
    """Draw a caption that is not in `seen` yet, and add it there."""
    for _ in range(TRIES):
        prompt = caption(random_scene(rng, effects, grows), rng, wording)
        if prompt not in seen:
            seen.add(prompt)
            return prompt
    raise InputError(
        f"no new prompt found in {TRIES} draws (effects {effects}, grows {grows}); ask for fewer "
        "prompts"
    )


def _write_unsafe(prompt_path, label_path, count, wording, seed, seen):
    rng = np.random.default_rng(seed)
    effects = effect_sets(count, rng)
    _write_lines(prompt_path, [new_prompt(rng, seen, e, wording=wording) for e in effects])
    columns = [[row for row, e in enumerate(effects) if category in e] for category in CATEGORIES]
    write_labels(dict(zip(CATEGORIES, columns)), label_path)
    return prompt_path, label_path


def _write_normal(path, count, seed, seen):
    rng = np.random.default_rng(seed)
    grows = rng.permutation(count) < round(GROWING * count)
    _write_lines(path, [new_prompt(rng, seen, grows=bool(g)) for g in grows])
    return path


def _write_lines(path, lines):
    save_text("\n".join(lines) + "\n", path)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
