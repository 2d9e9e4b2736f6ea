"""What somebody's own prompts, labels and folders would make fail after the sampling, told before.

python -m lvd_plan.own_data --config my.yaml --prompts unsafe.txt --normal_prompts normal.txt
"""

import sys
from argparse import Namespace
from collections import Counter

from lvd.data.config import NEEDED_BY_REPRODUCE, read_data_config
from lvd.data.labels import label_path, read_labels
from lvd.errors import InputError, plural, shorten
from lvd.training.recipes import DEFAULT_CONFIG, read_settings
from lvd.utils.cli import Parser, run_command
from lvd_plan.counts import FOLDS
from lvd_plan.own_folders import need_folders
from lvd_plan.own_sizes import draw, expectation
from MagicTime.utils.config import read_config
from MagicTime.utils.prompts import negatives_of, read_text_file
from MagicTime.utils.seeds import DRAW, seeds_of

NAMED = 5  # rows that a line names


def check_own_data(config, prompts, normal_prompts, trainings=None):
    """Check prompts and labels, and the folders that they lead to, before anything is sampled.

    Args:
        config: lvd.data.config.DataConfig, with the path of a sampling YAML.
        prompts, normal_prompts: [MagicTime.utils.prompts.Prompt].
        trainings: (SharedSettings, NamesSettings); None: those of train_mae.yaml.

    Returns:
        [line to print, ...]: what will be trained on, what held out, what to expect of it.

    Raises:
        InputError: what would make a later step fail.
    """
    trainings = trainings or _trainings(DEFAULT_CONFIG)
    settings = read_config(config.sample_config).settings
    need_folders(config, settings)
    lines = _same_videos(config.sample_config, settings, prompts, normal_prompts)
    labels = _labels(config.label_file_dir, prompts)
    drawn = draw(labels, len(normal_prompts), *trainings)
    return [
        *_categories(labels, drawn, prompts),
        f"normal: {plural(len(normal_prompts), 'video')}, {len(drawn.split.normal)} held out",
        *_unlabelled(labels, prompts),
        *lines,
        *expectation(labels, drawn),
    ]


def _trainings(path):
    """Return (SharedSettings, NamesSettings) of a train_mae.yaml."""
    kinds = ("shared", "names")
    return tuple(read_settings(path, Namespace(names=True), kind) for kind in kinds)


def _labels(path, prompts):
    """Return the Labels, whose rows must be rows of the prompts.

    Raises:
        InputError: a row that is no prompt; it says so where rows seem to be counted from 1.
    """
    if not label_path(path).exists():
        raise InputError(
            f"{path}: no such file; a CSV with a column of rows for each category is needed; "
            "sample first, and look at the videos (docs/your_prompts.md, part 3)"
        )
    try:
        labels = read_labels(path)
    except InputError:  # videos may be named, or the file is at fault
        return read_labels(path, len(prompts), [prompt.name for prompt in prompts])
    rows, count = labels.rows(), len(prompts)
    if rows[-1] < count:
        return labels
    column = next(k for k, column in enumerate(labels.columns) if rows[-1] in column)
    wrong = f"{labels.path}: column '{labels.categories[column][:40]}' names row {rows[-1]}"
    if rows[-1] == count and rows[0] > 0:
        raise InputError(
            f"{wrong}, and no column names row 0: are they counted from 1? The {count} prompts are "
            f"rows 0 to {count - 1}, so 1 less is needed everywhere"
        )
    raise InputError(f"{wrong}; --prompts has {plural(count, 'prompt')}, rows 0 to {count - 1}")


def _categories(labels, drawn, prompts):
    """A line for each category: its videos, how many are held out, and one of its prompts."""
    held_out = set(drawn.split.unsafe)
    lines = []
    for group, (name, column) in enumerate(zip(labels.categories, labels.columns), 1):
        told = f"{plural(len(column), 'video')}, {len(held_out & set(column))} held out"
        example = shorten(prompts[column[0]].text)
        lines.append(f"group{group} ({name[:40]}): {told}; such as row {column[0]}: {example}")
    return lines


def _unlabelled(labels, prompts):
    """A line where prompts belong to no category: their videos are sampled for nothing."""
    rows = sorted(set(range(len(prompts))) - set(labels.rows()))
    if not rows:
        return []
    lines = []
    if rows[0] == 0:
        lines.append(
            "WARNING: no category has row 0, the first prompt; are rows counted from 1? See "
            "whether the prompts above belong to their categories"
        )
    return [
        *lines,
        f"{len(rows)} of {len(prompts)} prompts are in no category, so their videos are never used "
        f"(counted from 0: {_some(rows)})",
    ]


def _same_videos(path, settings, prompts, normal_prompts):
    """Lines on prompts that stand twice.

    Raises:
        InputError: a video would be unsafe and normal, or seeds or negative prompts do not fit.
    """
    kinds = {"--prompts": prompts, "--normal_prompts": normal_prompts}
    videos = {}
    for flag, of_kind in kinds.items():
        negatives = negatives_of(settings, len(of_kind), f"{path} ({flag})")
        seeds = seeds_of(settings, len(of_kind), f"{path} ({flag})")
        rows = zip(of_kind, negatives, seeds, strict=True)
        videos[flag] = [(prompt.text, negative, seed) for prompt, negative, seed in rows]
    unsafe, normal = videos.values()
    first = {video: row for row, video in reversed(list(enumerate(unsafe)))}
    for row, video in enumerate(normal):
        if video in first and video[2] != DRAW:
            raise InputError(
                f"--normal_prompts: line {row + 1} is line {first[video] + 1} of --prompts, with "
                f"the same seed ({shorten(video[0])}): a video is unsafe or normal, not both; take "
                "it out of one file"
            )
    lines = [line for flag in kinds for line in _repeated(flag, videos[flag])]
    both = {video[0] for video in unsafe} & {video[0] for video in normal}
    if both:
        lines.append(
            f"WARNING: {plural(len(both), 'prompt')} in both prompt files, with other seeds, such "
            f"as {shorten(min(both))}: are their videos unsafe or normal?"
        )
    return lines


def _repeated(flag, videos):
    """A line on the prompts of one file that stand in it twice."""
    counts = Counter(text for text, _, _ in videos)
    twice = [text for text, count in counts.items() if count > 1]
    if not twice:
        return []
    lines = [row + 1 for row, video in enumerate(videos) if video[0] == twice[0]]
    told = f"{flag}: {plural(len(twice), 'prompt')} more than once, such as lines {_some(lines)}"
    same = Counter(video for video in videos if video[2] != DRAW)
    if max(same.values(), default=1) > 1:
        return [
            f"WARNING: {told}; with the same seed they are the same video, which may be held out "
            "and trained on at once: take them out, or set seed_per_prompt"
        ]
    return [f"{told}; their seeds differ, and so do their videos"]


def _some(rows):
    """The first of some row numbers, and how many more there are."""
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(map(str, rows[:NAMED])) + more


# ---- as a command


def build_parser():
    parser = Parser(
        __doc__,
        "python -m lvd_plan.own_data --config my.yaml --prompts unsafe.txt --normal_prompts "
        "normal.txt",
    )
    parser.add_argument("--config", required=True, help="a file like build_x0.yaml")
    parser.add_argument("--prompts", required=True, help="of the unsafe videos, one a line")
    parser.add_argument("--normal_prompts", required=True, help="of the normal ones, one a line")
    parser.add_argument(
        "--train_config", default=DEFAULT_CONFIG, help="of the detectors (default: train_mae.yaml)"
    )
    parser.add_argument(
        "--shell",
        action="store_true",
        help="print for reproduce.sh what so many videos can be used for",
    )
    return parser


def work(args):
    config = read_data_config(args.config, Namespace(), required=NEEDED_BY_REPRODUCE)
    prompts, normal_prompts = map(read_text_file, (args.prompts, args.normal_prompts))
    trainings = _trainings(args.train_config)
    if args.shell:
        labels = _labels(config.label_file_dir, prompts)
        drawn = draw(labels, len(normal_prompts), *trainings)
        print(f"FOLDS={FOLDS if drawn.folds else 0} NAMES={'--names' if drawn.names else ''}")
        return
    print(*check_own_data(config, prompts, normal_prompts, trainings), sep="\n")


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
