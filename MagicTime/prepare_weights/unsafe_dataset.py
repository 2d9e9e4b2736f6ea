"""The label file and the prompt file of the paper's authors, from their gated dataset on the hub.

Its page says that both were corrected on 2024-10-23; what they are called it does not say. So the
repository is asked for its files, and those two are chosen by their names; where that is not clear
the user names them. Videos are never loaded. The prompts are made to hurt: none is shown, in no
message and no summary, and the folder tells git to leave it alone.
"""

import re
import shutil
from pathlib import Path

from lvd.errors import InputError, plural
from lvd.utils.cli import summary
from MagicTime.prepare_weights.manifest import File, Source, Weight, check_file
from MagicTime.prepare_weights.unsafe_texts import read_texts

NAME = "unsafe_dataset"
REPOSITORY = "pypy/unsafe_generated_video_dataset"
FOLDER = "MagicTime/outputs/unsafe_dataset"  # MagicTime/sample_configs/build_x0_real.yaml names it
DEFAULT_DIR = Path(__file__).resolve().parents[2] / FOLDER
RECORD = "unsafe_dataset.yaml"
LABELS, PROMPTS = "label.csv", "prompts.txt"
OTHERS = ("readme", "license", "licence", "requirements", "dataset_info")
# What the page of the dataset says: videos, and unsafe ones of each category.
VIDEOS, UNSAFE = 2000, [590, 579, 445, 204, 39]


def add_flags(parser):
    """Add the flags of `--what unsafe_dataset` to the parser of download.py."""
    group = parser.add_argument_group(f"with --what {NAME}, where the files are not found by name")
    group.add_argument("--label_file", help="the label file, as the repository calls it")
    group.add_argument("--prompt_file", help="the prompt file, as the repository calls it")
    group.add_argument(
        "--prompt_column",
        help="header of the prompts in a CSV, or none: its first line is a prompt, too",
    )


def refuse_flags(args):
    """InputError where a flag of `add_flags` is given with other weights."""
    for flag in ("label_file", "prompt_file", "prompt_column"):
        if getattr(args, flag):
            raise InputError(f"--{flag} goes with --what {NAME}")


def find(args):
    """Ask the hub which files there are; returns the Weight of the two that are wanted."""
    if args.what != [NAME]:
        raise InputError(f"--what {NAME}: goes alone, it has a folder of its own")
    from MagicTime.prepare_weights import hub

    source = Source(REPOSITORY, args.revision or "main", kind="dataset")
    try:
        info = hub.dataset_info(REPOSITORY, source.revision)
    except hub.Unavailable as error:
        raise InputError(f"{NAME}: {source}: {error}; see {source.page}") from error
    names = [sibling.rfilename for sibling in info.siblings or []]
    chosen = choose_files(names, args.label_file, args.prompt_file)
    return _weight(info.sha, chosen)


def known(args):
    """Return the Weight that was loaded into --dir, without the hub."""
    record = _record(args.dir)
    if record is None:
        raise InputError(f"--check {args.dir}: no {RECORD} there, nothing was loaded yet")
    return _weight(record["revision"], [record["label_file"], record["prompt_file"]])


def _weight(revision, names):
    for name in names:
        check_file(f"source/{name}", {}, REPOSITORY)
    return Weight(
        NAME,
        "labels and prompts of the paper's authors",
        "for research only; the terms of its page, which access is given on",
        ("build_x0_real.yaml",),
        "source",
        (Source(REPOSITORY, revision, kind="dataset"),),
        tuple(File(name, f"source/{name}") for name in names),
    )


def choose_files(names, label=None, prompt=None):
    """Choose the label file and the prompt file by their names.

    Args:
        names: of all files of the repository.
        label, prompt: names that the user gives; None: not given.

    Returns:
        [label file, prompt file].

    Raises:
        InputError: there is no such file, or several may be it.
    """
    names = [name for name in names if name.isprintable()]  # messages show them
    plain = [
        name for name in names if not name.rpartition("/")[2].lower().startswith((".", *OTHERS))
    ]
    tables = [name for name in plain if name.lower().endswith(".csv")]
    marked = [name for name in tables if "label" in _base(name)]
    other = [name for name in tables if "prompt" not in _base(name)]
    label = _one("label", label, marked or other, names)
    texts = [name for name in plain if name.lower().endswith((".txt", ".csv", ".json"))]
    texts = [name for name in texts if name != label]
    marked = [name for name in texts if "prompt" in _base(name)]
    other = [name for name in texts if name.lower().endswith(".txt")]
    return [label, _one("prompt", prompt, marked or other, names)]


def _base(name):
    return name.rpartition("/")[2].lower()


def _one(what, given, candidates, names):
    if given is not None:
        if given not in names:
            found = f"; it may be {', '.join(candidates[:4])}" if candidates else ""
            raise InputError(f"--{what}_file {given}: {REPOSITORY} has no such file{found}")
        return given
    if len(candidates) != 1:
        found = f" ({', '.join(candidates[:4])[:120]})" if candidates else ""
        raise InputError(
            f"{NAME}: {plural(len(candidates), 'file')} of {REPOSITORY} may be the {what} file"
            f"{found}; name it with --{what}_file"
        )
    return candidates[0]


def hide_from_git(folder):
    """Tell git to leave the folder alone; before a prompt comes into it."""
    from lvd.utils.files import save_text

    save_text("*\n", folder / ".gitignore")


def lay_out(weight, args):
    """Make label.csv and prompts.txt of the files that were loaded; check them and report."""
    from lvd.utils.files import save_text, save_yaml, sha256
    from lvd.utils.partials import atomic

    label, prompt = (args.dir / file.here for file in weight.files)
    texts = read_texts(prompt, args.prompt_column)
    with atomic(args.dir / LABELS) as partial:
        shutil.copyfile(label, partial)
    save_text("".join(f"{text}\n" for text in texts), args.dir / PROMPTS)
    labels = _labels(args.dir / LABELS, len(texts), weight.files[0].name)
    hashes = {name: sha256(args.dir / name) for name in (LABELS, PROMPTS)}
    record = {
        "repository": REPOSITORY,
        "revision": weight.sources[0].revision,
        "label_file": weight.files[0].name,
        "prompt_file": weight.files[1].name,
        "prompt_column": args.prompt_column,
        "prompts": len(texts),
        "sha256": hashes,
    }
    save_yaml(record, args.dir / RECORD)
    counts = [len(column) for column in labels.columns]
    facts = {
        "label file": f"{record['label_file']}, {len(labels.rows())} videos labelled",
        "prompt file": f"{record['prompt_file']}, {len(texts)} prompts; none is shown here",
        **{name: f"{count} videos" for name, count in zip(labels.categories, counts)},
        **{f"sha256 of {name}": digest for name, digest in hashes.items()},
    }
    if len(texts) != VIDEOS or counts != UNSAFE:
        wanted = ", ".join(map(str, UNSAFE))
        facts["other than on its page"] = f"{VIDEOS} videos; of the categories {wanted}"
    summary(NAME, facts, [args.dir / name for name in (LABELS, PROMPTS, RECORD)])


def is_there(args):
    """Whether both files were laid out before; says so.

    Raises:
        InputError: one of them was changed since.
    """
    record = _record(args.dir)
    if record is None or args.check or args.dry_run:
        return False
    from lvd.utils.files import sha256

    files = [args.dir / name for name in (LABELS, PROMPTS)]
    for path in files:
        if path.is_file() and sha256(path) != record["sha256"][path.name]:
            raise InputError(
                f"{path}: was changed since it was loaded; delete it, and it is loaded again, or "
                "use another --dir"
            )
    keys = ("label_file", "prompt_file", "prompt_column", "revision")
    wanted = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    if any(record.get(key) != value for key, value in wanted.items()):
        return False
    if not all(path.is_file() for path in files):
        return False
    paths = {"labels": args.dir / LABELS, "prompts": args.dir / PROMPTS}
    summary(f"{NAME} is there already: nothing is done", paths, [])
    return True


def _record(folder):
    from lvd.utils.config import check_keys
    from lvd.utils.files import load_yaml

    path = folder / RECORD
    if not path.exists():
        return None
    record = load_yaml(path)
    keys = ("repository", "revision", "label_file", "prompt_file", "prompts", "sha256")
    check_keys(record, (*keys, "prompt_column"), keys, path)
    check_keys(record["sha256"], (LABELS, PROMPTS), (LABELS, PROMPTS), f"{path}, sha256")
    return record


def _labels(path, rows, name):
    """Read the label file; what is wrong in it is told without any of its words.

    They may be prompts, where another file was taken for the label file.
    """
    from lvd.data.labels import read_labels

    try:
        return read_labels(path, rows)
    except InputError as error:
        line = re.search(r"line (\d+)", str(error))
        where = f" (line {line[1]})" if line else ""
    try:
        largest = max(read_labels(path).rows())
        wrong = f"labels row {largest}, of {plural(rows, 'prompt')} the last is row {rows - 1}"
    except InputError:
        wrong = "not a label file"
    path.unlink()
    raise InputError(
        f"{name}: {wrong}{where}; name the right files with --label_file and --prompt_file"
    )
