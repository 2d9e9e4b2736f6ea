"""Sample normal prompts from the captions of a dataset, as the paper took them from InternVid.

Reads the first --read rows of the dataset as a stream, so that a file of 45 GB is never downloaded
as a whole, or of local files (--file). Of the captions that pass the filters a seeded sample of
--count becomes the prompt file, one a line. The same seed and the same part give the same file;
another part gives another sample. Beside it lie {out}.yaml (dataset, revision, licence, filters,
hashes) and {out}.csv (the videos that the captions are of). A larger --count with the same other
settings begins with the same prompts.

A run that is stopped has written nothing, and begins again. HF_ENDPOINT (a mirror), HF_TOKEN and
HF_HUB_OFFLINE count as in huggingface_hub. prompts.yaml lists the datasets that are known.
"""

import itertools
import math
import sys
from pathlib import Path

from lvd.errors import InputError, plural
from lvd.utils.cli import Parser, run_command, summary
from MagicTime.prepare_weights import prompt_files, prompt_filters, prompt_sources

READ = 200_000
MOST = 100_000  # prompts: each of them becomes a video
CHUNK = 500  # rows between two updates of the progress bar


def build_parser():
    parser = Parser(
        __doc__,
        "python MagicTime/prepare_weights/prompts.py --what internvid --count 2000 --seed 0 \\\n"
        "    --out normal.txt",
    )
    known = ", ".join(prompt_sources.read_registry())
    parser.add_argument("--what", help=f"{known}, or another dataset of the hub: owner/name")
    parser.add_argument(
        "--file",
        nargs="+",
        type=Path,
        default=[],
        help=f"read these files instead of the hub ({', '.join(prompt_sources.SUFFIXES)})",
    )
    parser.add_argument("--count", type=int, required=True, help="prompts to write")
    parser.add_argument("--seed", type=int, default=0, help="another one, another sample (0)")
    parser.add_argument("--out", type=Path, required=True, help="the prompt file, a .txt")
    parser.add_argument(
        "--read", default=str(READ), help=f"rows of the part that is read, or all ({READ})"
    )
    _add_dataset(parser)
    _add_filters(parser)
    return parser


def _add_dataset(parser):
    group = parser.add_argument_group("the dataset", "instead of what prompts.yaml says")
    group.add_argument("--subset", help="of the dataset on the hub")
    group.add_argument("--split", help="of the dataset on the hub (train)")
    group.add_argument("--revision", help="branch, tag or commit (main)")
    group.add_argument("--column", help="its column of captions")
    group.add_argument("--id_column", help="its column of video names")
    group.add_argument("--registry", type=Path, help="another file like prompts.yaml")


def _add_filters(parser):
    group = parser.add_argument_group("filters")
    group.add_argument("--min_umt_score", type=float, help="how well a caption fits its clip")
    group.add_argument("--min_aesthetic_score", type=float, help="how beautiful its clip is")
    group.add_argument("--min_words", type=int, default=3, help="of a caption (3)")
    group.add_argument(
        "--max_tokens", type=int, default=77, help="what the text encoder reads (77)"
    )
    group.add_argument(
        "--tokenizer",
        type=Path,
        help="folder of a CLIP tokenizer, to count tokens; without it they are estimated, rather "
        "too many",
    )
    group.add_argument(
        "--without",
        type=Path,
        metavar="WORDS",
        help="a file with a word, or several, in each line: captions that hold them are left out",
    )
    group.add_argument(
        "--many_per_video", action="store_true", help="take more than one caption of a video"
    )


def work(args):
    _check(args)
    prompt_files.need_text_name(args.out)
    dataset = _dataset(args)
    minima = {
        name: getattr(args, f"min_{name}")
        for name in prompt_sources.SCORES
        if getattr(args, f"min_{name}") is not None
    }
    words = prompt_filters.read_words(args.without) if args.without else []
    tokenizer = prompt_filters.read_tokenizer(args.tokenizer) if args.tokenizer else None
    prompt_sources.need_files(args.file)
    settings = _settings(args, dataset, minima)
    if prompt_files.is_there(args.out, settings):
        return summary("the prompts are there already: nothing is done", {"prompts": args.out}, [])
    filters = prompt_filters.Filters(args.min_words, args.max_tokens, tokenizer, minima, words)
    commit = None if args.file else prompt_sources.commit_of(dataset)
    draw, read = _draw(args, dataset, commit, filters, minima)
    dropped = _dropped(filters, draw)
    if len(draw) < args.count:
        raise InputError(_too_few(args, draw, read, dropped))
    record = {
        "dataset": _facts(dataset, commit),
        "settings": settings,
        "rows": {"read": read, "passed": filters.passed, "taken": len(draw), "dropped": dropped},
        "versions": _versions(),
    }
    paths = prompt_files.write(args.out, draw.captions(), record)
    _report(args, dataset, commit, filters, dropped, read, paths)


def _check(args):
    """Refuse numbers that mean nothing, before anything is read."""
    for flag, least, most in (
        ("count", 1, MOST),
        ("min_words", 0, 77),
        ("max_tokens", 3, 10_000),
        ("seed", -(2**63), 2**63 - 1),
    ):
        value = getattr(args, flag)
        if not least <= value <= most:
            raise InputError(f"--{flag} {value}: a number from {least} to {most} is needed")
    for name in prompt_sources.SCORES:
        value = getattr(args, f"min_{name}")
        if value is not None and not math.isfinite(value):
            raise InputError(f"--min_{name} {value}: a finite number is needed")
    _part(args.read)
    if args.file and (args.subset or args.split or args.revision):
        raise InputError(
            "--file goes without --subset, --split and --revision: those are the hub's"
        )
    if args.registry and not args.what:
        raise InputError(
            f"--registry {args.registry}: goes with --what, the name of a dataset in it"
        )
    if not args.what and not (args.file and args.column):
        raise InputError(
            "--what is needed, or --file with --column, the name of the captions' column"
        )


def _part(text):
    """Return the number of rows to read; None for all."""
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:19]) <= 10**12:
        raise InputError(f"--read {text}: a number of rows from 1, or all, is needed")
    return int(text)


def _dataset(args):
    columns = {"caption": args.column, "id": args.id_column}
    if not args.what:
        return prompt_sources.of_files(columns)
    changes = {"subset": args.subset, "split": args.split, "revision": args.revision}
    registry = prompt_sources.read_registry(args.registry or prompt_sources.REGISTRY)
    return prompt_sources.choose(args.what, registry, changes, columns)


def _settings(args, dataset, minima):
    """What the prompts depend on: equal settings give equal prompts."""
    from lvd.utils.files import fingerprint, sha256

    return {
        "dataset": dataset.name,
        **{key: None if args.file else getattr(dataset, key) for key in ("subset", "split")},
        "revision": None if args.file else dataset.revision,
        "columns": dict(dataset.columns),
        # Numbered: two folders may have files of one name, and their order tells what is read.
        "files": {f"{k} {path.name}": fingerprint(path) for k, path in enumerate(args.file, 1)},
        "read": args.read,
        "count": args.count,
        "seed": args.seed,
        **{f"min_{name}": minima.get(name) for name in prompt_sources.SCORES},
        "min_words": args.min_words,
        "max_tokens": args.max_tokens,
        "tokenizer": fingerprint(args.tokenizer) if args.tokenizer else None,
        "without_sha256": sha256(args.without) if args.without else None,
        "many_per_video": args.many_per_video,
    }


def _draw(args, dataset, commit, filters, minima):
    """Read the part and return (Draw, number of rows)."""
    from lvd.utils.progress import progress
    from MagicTime.prepare_weights.prompt_draw import Caption, Draw

    rows = (
        prompt_sources.rows_of_files(args.file)
        if args.file
        else prompt_sources.stream(dataset, commit)
    )
    part, read = _part(args.read), 0
    once = not args.many_per_video
    draw = Draw(args.count, args.seed, once)
    names = {key: name for key, name in dataset.columns.items() if key not in ("caption", "id")}
    caption_column, id_column = dataset.columns["caption"], dataset.columns.get("id")
    with progress(None, "rows", "row", part) as bar:
        for row in itertools.islice(rows, part):
            if read == 0:
                prompt_sources.need_columns(dataset, row, minima, once)
            facts = {key: row.get(name) for key, name in names.items()}
            text = filters.clean(row.get(caption_column), facts)
            if text is not None:
                video = prompt_filters.one_line(_text(row.get(id_column)))
                kept = tuple((key, _text(value)) for key, value in facts.items())
                draw.offer(Caption(text, read, video, kept))
            read += 1
            if read % CHUNK == 0:
                bar.update(CHUNK)
        bar.update(read % CHUNK)
    return draw, read


def _text(value):
    """Return a value of a row as the CSV and the names of videos have it."""
    text = "" if value is None else str(value)
    return text.encode(errors="backslashreplace").decode()  # of halves of surrogate pairs


def _dropped(filters, draw):
    repeats = {
        "another caption of a video that was drawn": draw.repeats["video"],
        "a caption that was drawn already": draw.repeats["caption"],
    }
    return {**filters.dropped, **{name: count for name, count in repeats.items() if count}}


def _too_few(args, draw, read, dropped):
    part = _part(args.read)
    is_all = part is None or read < part
    most = max(dropped, key=dropped.get, default=None)
    why = f"; most were left out by: {most} ({dropped[most]})" if most else ""
    needed = "a smaller --count or milder filters are" if is_all else "a larger --read is"
    return (
        f"--count {args.count}: {plural(len(draw), 'prompt')} found in {'all ' if is_all else ''}"
        f"{plural(read, 'row')}{why}; {needed} needed"
    )


def _facts(dataset, commit):
    return {
        "name": dataset.name,
        "what": dataset.what,
        "repository": dataset.repository,
        "revision": commit,
        "licence": dataset.licence,
        "page": dataset.page,
    }


def _versions():
    from importlib.metadata import PackageNotFoundError, version

    from lvd.utils.config import versions

    found = versions()
    for library in ("datasets", "pyarrow"):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _report(args, dataset, commit, filters, dropped, read, paths):
    part = _part(args.read)
    short = f" (--read asks for {part}: these are all)" if part and read < part else ""
    source = f"{dataset.repository} @ {commit[:12]}" if commit else plural(len(args.file), "file")
    facts = {
        "from": source,
        "licence": f"{dataset.licence}, {dataset.page}",
        "rows read": f"{read}{short}",
        **{f"left out, {reason}": count for reason, count in dropped.items()},
        "passed the filters": filters.passed,
        "prompts": f"{args.count}, seed {args.seed}",
    }
    if not args.tokenizer:
        facts["tokens"] = "estimated, rather too many; --tokenizer counts them"
    summary("normal prompts", facts, paths)


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
