"""label_videos.py import: from ratings to the label file."""

from collections import Counter
from pathlib import Path

from lvd.data.labels import read_labels, write_labels
from lvd.errors import InputError, plural
from lvd.utils.cli import summary
from lvd.utils.config import first_difference
from lvd.utils.files import load_yaml, need_no_folder, save_csv, save_text, save_yaml, sha256
from lvd.utils.libraries import OF_DATA, need_libraries
from lvd_labels.agreement import LIBRARIES, agreement_table, answers_of, rater_table
from lvd_labels.agreement_text import agreement_text, odd_raters
from lvd_labels.categories import NONE, UNSURE, parse_categories
from lvd_labels.majority import NOT_RATED, by_video, categories_of, doubtful_line, verdict_of
from lvd_labels.read_ratings import need_same_files, read_ratings
from lvd_labels.videos import read_videos

CONFIG = "import.yaml"
SAME = ("recording", "label_file")  # what an earlier import into the same files must agree in
UNLABELLED, DOUBTFUL, RATERS = "unlabelled.csv", "doubtful.csv", "raters.csv"
AGREEMENT, AGREEMENT_TEXT = "agreement.csv", "agreement.txt"
MOST_NEEDED = 1000


def import_ratings(args):
    """Write a label file, and what it was made of beside it.

    Args:
        args: of the command line: ratings, recording, categories, out, minimum_raters, twice,
            raters_from_files.

    Raises:
        InputError: naming file and line or task, for anything that cannot be used.
    """
    need_libraries(LIBRARIES, OF_DATA)
    if not 1 <= args.minimum_raters <= MOST_NEEDED:
        raise InputError(
            f"--minimum_raters {args.minimum_raters}: from 1 to {MOST_NEEDED} is needed"
        )
    given = parse_categories(args.categories) if args.categories else None
    _need_csv(args.out)
    videos = read_videos(args.recording)
    folder = args.out.with_name(f"{args.out.stem}_ratings")
    _need_own(args.out, folder, videos)
    ratings, replaced, empty = read_ratings(
        args.ratings, videos, args.twice, args.raters_from_files
    )
    unchecked = need_same_files(ratings, videos)
    categories = categories_of(ratings, given)
    counting = by_video(ratings)
    verdicts = {
        name: verdict_of(list(counting[name].values()), categories, args.minimum_raters)
        for name in videos.rows
        if name in counting
    }
    columns = _columns(verdicts, categories, videos)
    save_yaml(_config(args, videos, categories), folder / CONFIG)
    raters, agreement = _write_tables(folder, ratings, counting, verdicts, categories, videos)
    filled = {category: rows for category, rows in columns.items() if rows}
    if not filled:
        raise InputError(
            f"--out {args.out}: no category has a majority in any video, so the label file would "
            f"be empty; {folder / DOUBTFUL} says what raters chose"
        )
    write_labels(filled, args.out)
    read_labels(args.out, rows=videos.planned)
    written = {"label_sha256": sha256(args.out)}
    save_yaml(_config(args, videos, categories) | written, folder / CONFIG)
    facts = _facts(verdicts, columns, videos, ratings)
    facts |= _remarks(raters, agreement, replaced, unchecked)
    if empty:
        facts["no ratings yet"] = f"{plural(len(empty), 'file')}, such as {empty[0]}"
    summary("labels of ratings", facts, [args.out, folder])


def _need_csv(path):
    if path.suffix.lower() != ".csv":
        raise InputError(f"--out {path}: a name that ends in .csv is needed")
    need_no_folder(path, "--out")


def _need_own(path, folder, videos):
    """Refuse to write over a label file that was not made here, or was changed by hand."""
    before = folder / CONFIG
    if not before.is_file():
        if path.exists():
            raise InputError(
                f"--out {path}: there is a label file that was not made of ratings; give another "
                "name or move it away"
            )
        return
    known = load_yaml(before)
    known = known if isinstance(known, dict) else {}
    written = known.get("label_sha256")  # None: the last import was stopped before its end
    if path.is_file() and written not in (None, sha256(path)):
        raise InputError(
            f"--out {path}: was changed since it was made of ratings; give another name or move it "
            "away"
        )
    known = {key: known.get(key) for key in SAME}
    now = {"recording": str(videos.folder), "label_file": path.name}
    if difference := first_difference(known, now):
        raise InputError(
            f"--out {path}: made for another {difference[0].replace('_', ' ')} ({before}); give "
            "another name or move both away"
        )


def _config(args, videos, categories):
    return {
        "recording": str(videos.folder),
        "label_file": args.out.name,
        "categories": categories,
        "minimum_raters": args.minimum_raters,
        "twice": args.twice,
        "raters_from_files": args.raters_from_files,
        "ratings": {str(Path(path)): sha256(path) for path in args.ratings},
    }


def _columns(verdicts, categories, videos):
    return {
        category: sorted(
            videos.rows[name] for name, verdict in verdicts.items() if category in verdict.label
        )
        for category in categories
    }


def _write_tables(folder, ratings, counting, verdicts, categories, videos):
    """Write the tables beside the label file.

    Returns:
        (lines of raters.csv, lines of agreement.csv).
    """
    doubtful = [
        doubtful_line(name, videos.rows[name], verdict)
        for name, verdict in verdicts.items()
        if verdict.doubts
    ]
    columns = ("video", "row", "label", "why", "judged", UNSURE, NONE, *categories)
    save_csv(doubtful, folder / DOUBTFUL, columns)
    tried = {rating.video for rating in ratings}
    unlabelled = [
        {
            "video": name,
            "row": row,
            "why": "skipped, blank or contradictory" if name in tried else "not rated",
        }
        for name, row in videos.rows.items()
        if name not in verdicts
    ]
    save_csv(unlabelled, folder / UNLABELLED, ("video", "row", "why"))
    not_rated = Counter(
        rating.rater for rating in ratings if rating.answer.no_judgement in NOT_RATED
    )
    raters = rater_table(counting, categories, not_rated)
    save_csv(raters, folder / RATERS)
    agreement = agreement_table(answers_of(counting, categories))
    save_csv(agreement, folder / AGREEMENT)
    save_text(agreement_text(agreement, raters, len(verdicts)), folder / AGREEMENT_TEXT)
    return raters, agreement


def _facts(verdicts, columns, videos, ratings):
    """Counts of videos: each is labelled, of no category, undecided or unlabelled."""
    labelled = [verdict for verdict in verdicts.values() if verdict.label]
    sure = [verdict for verdict in verdicts.values() if not verdict.label and not verdict.doubts]
    doubtful = sum(bool(verdict.doubts) for verdict in verdicts.values())
    undecided = len(verdicts) - len(labelled) - len(sure)
    facts = {
        "ratings": f"{len(ratings)} by {plural(len({one.rater for one in ratings}), 'rater')}",
        "labelled": f"{plural(len(labelled), 'video')} of {len(videos.rows)}",
        **{f"  {category}": plural(len(rows), "video") for category, rows in columns.items()},
        "of no category": f"{plural(len(sure), 'video')}; not used",
        "undecided": f"{plural(undecided, 'video')}; not used",
        "doubtful": f"{plural(doubtful, 'video')}, named in {DOUBTFUL}",
        "unlabelled": f"{plural(len(videos.rows) - len(verdicts), 'video')}, named in {UNLABELLED}",
    }
    if empty := [category for category, rows in columns.items() if not rows]:
        facts["left out"] = f"{', '.join(empty)}: no video has a majority for it"
    return facts


def _remarks(raters, agreement, replaced, unchecked):
    defined = any(line["krippendorff_alpha"] is not None for line in agreement)
    said = ", ".join(map(_alpha, agreement)) if defined else "not defined for any category"
    remarks = {"agreement (alpha)": said}
    not_counted = sum(line["not_counted"] for line in raters)
    if not_counted:
        remarks["not counted"] = (
            f"{plural(not_counted, 'rating')}: skipped, blank, or a category with '{NONE}'"
        )
    if replaced:
        remarks["replaced"] = f"{plural(replaced, 'rating')} by later ones of the same rater"
    if unchecked:
        remarks["not checked"] = (
            f"whether raters saw these files, for {plural(unchecked, 'video')}: their hashes are "
            "not in the ratings, or not in the recording"
        )
    if odd := odd_raters(raters):
        remarks["raters"] = f"agree little with the others: {', '.join(odd[:5])}; see {RATERS}"
    return remarks


def _alpha(line):
    alpha = line["krippendorff_alpha"]
    return f"{line['category']} {'not defined' if alpha is None else f'{alpha:.2f}'}"
