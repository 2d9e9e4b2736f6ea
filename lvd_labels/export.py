"""label_videos.py export: what raters need, in one folder."""

from lvd.errors import InputError, plural
from lvd.utils.cli import summary
from lvd.utils.config import claim_output
from lvd.utils.files import save_csv, save_json, save_text
from lvd_labels import texts
from lvd_labels.categories import parse_categories
from lvd_labels.label_studio import labelling_page, start_script, tasks_of
from lvd_labels.lists import lists_of
from lvd_labels.names import names_of_file
from lvd_labels.videos import PLAYED, read_videos

CONFIG, PAGE, SCRIPT = "export.yaml", "labelling_page.xml", "start_server.sh"
INSTRUCTIONS, HOW_TO = "instructions.txt", "how_to.txt"
SHEET = ("video", "rater", "categories")  # columns of a sheet to fill in
MOST_RATERS, MOST_SECONDS = 1000, 3600


def export(args):
    """Write the folder that `args.out` names.

    Args:
        args: of the command line: recording, categories, out, raters, ratings_per_video, only,
            show_prompt, seconds, seed.

    Raises:
        InputError: anything in them, or in the recording, that cannot be used.
    """
    each = _ratings_per_video(args)
    categories = parse_categories(args.categories)
    if not 0 <= args.seed < 2**31:
        raise InputError(f"--seed {args.seed}: from 0 to {2**31 - 1} is needed")
    if not 0 < args.seconds <= MOST_SECONDS:
        raise InputError(f"--seconds {args.seconds}: above 0, up to {MOST_SECONDS} is needed")
    videos = read_videos(args.recording)
    names = names_of_file(args.only, videos) if args.only else list(videos.rows)
    videos.need_played(names)
    if args.raters > len(names):
        raise InputError(
            f"--raters {args.raters}: {plural(len(names), 'video')}, a rater each would be too few"
        )
    digests = videos.digests(names)
    config = {
        "recording": str(videos.folder),
        "categories": categories,
        "videos": len(names),
        "raters": args.raters,
        "ratings_per_video": each,
        "show_prompt": args.show_prompt,
        "seed": args.seed,
    }
    claim_output(args.out, config, CONFIG)
    lists = lists_of(names, args.raters, each, args.seed)
    written = _write_lists(args.out, lists, digests, videos.prompts if args.show_prompt else None)
    save_text(labelling_page(categories, videos, args.show_prompt), args.out / PAGE)
    if not (args.out / INSTRUCTIONS).exists():  # people add what their categories mean
        save_text(texts.instructions(categories), args.out / INSTRUCTIONS)
    save_text(start_script(videos.folder), args.out / SCRIPT)
    longest = max(map(len, lists))
    facts = {
        "lists": plural(args.raters, "list"),
        "count": "up to " * (args.raters > 1) + plural(longest, "video"),
        "videos": f"{len(names)} videos, {plural(each, 'rating')} of each",
        "seconds": f"{args.seconds:g}",
        "time": _words_of_time(longest * args.seconds),
        "recording": videos.folder,
        "tasks": written[0].name if args.raters == 1 else "its tasks_*.json",
        "sheets": written[1].name if args.raters == 1 else "sheet_*.csv",
        "out": args.out,
    }
    save_text(texts.how_to(facts, categories, args.show_prompt), args.out / HOW_TO)
    _tell(args, facts, videos)


def _ratings_per_video(args):
    if not 1 <= args.raters <= MOST_RATERS:
        raise InputError(f"--raters {args.raters}: from 1 to {MOST_RATERS} is needed")
    each = args.ratings_per_video
    if each is None:
        return min(3, args.raters)
    if not 1 <= each <= args.raters:
        raise InputError(
            f"--ratings_per_video {each}: from 1 to --raters, {args.raters}, is needed: nobody "
            "rates a video twice"
        )
    return each


def _write_lists(folder, lists, digests, prompts):
    """Write the tasks and the sheet of each list. A sheet that is there may be filled in: it stays.

    Returns:
        Their paths.
    """
    paths = []
    for number, names in enumerate(lists, 1):
        mark = "" if len(lists) == 1 else f"_{number:0{len(str(len(lists)))}d}"
        tasks, sheet = folder / f"tasks{mark}.json", folder / f"sheet{mark}.csv"
        save_json(tasks_of(names, digests, prompts), tasks)
        if not sheet.exists():
            # With a suffix: a spreadsheet would make 83 of 0083.
            save_csv([dict(zip(SHEET, (f"{name}{PLAYED}", "", ""))) for name in names], sheet)
        paths += [tasks, sheet]
    return paths


def _words_of_time(seconds):
    if seconds < 3600:
        return plural(max(1, round(seconds / 60)), "minute")
    return f"{seconds / 3600:.1f} hours"


def _tell(args, facts, videos):
    told = {
        "lists": f"{facts['lists']}: {facts['count']} of {facts['videos']}",
        "time": f"about {facts['time']} a rater, {facts['seconds']} seconds a video",
        "prompts": texts.SHOWN if args.show_prompt else texts.HIDDEN,
    }
    if len(videos.rows) < videos.planned:
        told["recording"] = f"{len(videos.rows)} of {videos.planned} videos are finished so far"
    summary("videos to label", told, [args.out, args.out / HOW_TO])
