"""Download the weights that the sample configs name from the Hugging Face hub.

They go into the folders where the configs expect them.

What is there with the right size is not loaded again; a run that was stopped goes on where it
stopped. Sizes and hashes (those of weights.yaml and the hub's own) are checked before a file gets
its name. HF_ENDPOINT (a mirror), HF_TOKEN and HF_HUB_OFFLINE count as in huggingface_hub.
weights.yaml lists repositories, revisions, sizes, hashes and licences.

--what unsafe_dataset loads the label file and the prompt file of the paper's authors, for which the
hub wants a token of somebody who was given access (HF_TOKEN). No video is loaded, and no prompt is
ever shown.
"""

import os
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.disk import nearest
from MagicTime.prepare_weights import unsafe_dataset
from MagicTime.prepare_weights.loaded import RECORD, check, read_record
from MagicTime.prepare_weights.manifest import GROUPS, MANIFEST, choose, read_manifest
from MagicTime.prepare_weights.plan import STAGING, at_revision, bytes_needed, partial_path, plan

DEFAULT_DIR = Path(__file__).resolve().parents[1] / "ckpts"


def build_parser():
    parser = Parser(
        __doc__,
        "python MagicTime/prepare_weights/download.py --what base motion magic realisticvision",
    )
    parser.add_argument(
        "--what",
        nargs="+",
        required=True,
        metavar="NAME",
        help=f"{', '.join(read_manifest())}; {', '.join(GROUPS)} (all three), all; or "
        f"{unsafe_dataset.NAME}, alone",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        help="where ckpts lies (default: MagicTime/ckpts); of unsafe_dataset its own folder "
        f"(default: {unsafe_dataset.FOLDER})",
    )
    parser.add_argument(
        "--revision",
        help="branch, tag or commit of the first source instead of weights.yaml's; sizes and "
        "hashes are then the hub's own",
    )
    parser.add_argument(
        "--manifest", type=Path, default=MANIFEST, help="another file like weights.yaml"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list files, sizes, licences and free disk; write nothing",
    )
    parser.add_argument(
        "--check", action="store_true", help="hash what is there, without the hub; write nothing"
    )
    unsafe_dataset.add_flags(parser)
    return parser


def work(args):
    is_dataset = unsafe_dataset.NAME in args.what
    args.dir = args.dir or (unsafe_dataset.DEFAULT_DIR if is_dataset else DEFAULT_DIR)
    if args.check and (args.dry_run or args.revision):
        raise InputError("--check goes without --dry-run and --revision")
    if is_dataset:
        if unsafe_dataset.is_there(args):
            return None
        weights = [unsafe_dataset.known(args) if args.check else unsafe_dataset.find(args)]
    else:
        unsafe_dataset.refuse_flags(args)
        weights = choose(args.what, read_manifest(args.manifest))
    if args.check:
        return check(weights, args.dir)
    if args.revision and not is_dataset:
        weights = [at_revision(weight, args.revision) for weight in weights]
    steps = plan(weights, args.dir, read_record(args.dir))
    reached = _ask_hub(weights, steps, args.dry_run)
    _print_plan(weights, steps)
    need = bytes_needed(steps, args.dir)
    free = shutil.disk_usage(nearest(args.dir)).free
    there = sum(step.state == "there" for step in steps)
    facts = {
        "files": f"{len(steps)}, {there} of them there",
        "still to load": show(need),
        "free disk": f"{show(free)} at {args.dir}",
    }
    if args.dry_run:
        facts["hub"] = "asked" if reached else "not reached: sizes are those of the manifest"
        too_small = ", the disk is too small" if need > free else ""
        return summary(f"dry run: nothing written{too_small}", facts, [])
    if need > free:
        raise InputError(
            f"--dir {args.dir}: {show(need)} are to load, {show(free)} are free on this disk"
        )
    if is_dataset:
        unsafe_dataset.hide_from_git(args.dir)
    written = download(steps, args.dir)
    if is_dataset:
        return unsafe_dataset.lay_out(weights[0], args)
    return summary(
        "weights",
        {"files": f"{len(steps)}, {len(written)} of them loaded now"},
        [*written, args.dir / RECORD] if written else [],
    )


def _ask_hub(weights, steps, dry_run):
    """Give every step that is not there its Remote.

    Returns:
        False when the hub did not answer, in a dry run; otherwise this is an error.
    """
    from MagicTime.prepare_weights import hub

    for weight in weights:
        open_steps = [step for step in steps if step.weight is weight and step.state != "there"]
        if not open_steps:
            continue
        try:
            remotes = hub.locate(weight, [step.file for step in open_steps])
        except hub.NotReached as error:
            if not dry_run:
                raise
            print(error)
            return False
        for step in open_steps:
            step.remote = remotes[step.file.here]
            if step.state == "unsure":
                _compare(step)
    return True


def _compare(step):
    """Compare a file whose size was not known beforehand with the hub's."""
    from MagicTime.prepare_weights.hub import difference

    wrong, _ = difference(step.target, step.remote.size, step.remote.hashes)
    if wrong:
        raise InputError(f"{step.target}: {wrong}; delete or rename it, then it is loaded")
    step.state = "there"


def _print_plan(weights, steps):
    for weight in weights:
        mine = [step for step in steps if step.weight is weight]
        source = next((step.remote.source for step in mine if step.remote), weight.sources[0])
        print(
            f"{weight.name}: {weight.what}\n  licence: {weight.licence}\n  needed by: "
            f"{', '.join(weight.needed_by)}\n  from: {source}"
        )
        for step in mine:
            print(f"  {show(step.size) if step.size else '?':>9}  {step.state:8} {step.file.here}")


def download(steps, folder):
    """Load what is missing, one process at a time; returns the paths of the files."""
    missing = [step for step in steps if step.state != "there"]
    if not missing:
        return []
    (folder / STAGING).mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for number, step in enumerate(missing, 1):
            print(f"{number}/{len(missing)} {step.file.here}")
            _load(step, folder)
        with suppress(OSError):  # it holds parts of a file that was not asked for now
            (folder / STAGING).rmdir()
    return [step.target for step in missing]


@contextmanager
def _alone(folder):
    from lvd.utils.locks import try_lock, warn_unlocked

    handle = os.open(folder, os.O_RDONLY)
    try:
        locked = try_lock(handle)
        if locked is False:
            raise InputError(f"{folder}: another download writes here")
        if locked is None:
            warn_unlocked(folder)
        yield
    finally:
        os.close(handle)


def _load(step, folder):
    """Load one file into the staging folder, check it, give it its name, record it."""
    from lvd.utils.files import save_json
    from MagicTime.prepare_weights import hub

    partial = partial_path(step, folder)
    hub.fetch(step.remote, partial, step.file.here)
    wrong, sha256 = hub.difference(partial, step.remote.size, step.remote.hashes)
    if wrong:
        partial.unlink()
        raise InputError(
            f"{step.file.here} from {step.remote.source}: {wrong}; nothing was kept of it"
        )
    step.target.parent.mkdir(parents=True, exist_ok=True)
    size = partial.stat().st_size
    os.replace(partial, step.target)
    source = step.remote.source
    save_json(
        {
            **read_record(folder),
            step.file.here: {
                "repository": source.repository,
                "kind": source.kind,
                "path": step.remote.path,
                "revision": step.remote.revision,
                "wanted_revision": step.weight.sources[0].revision,
                "size": size,
                "sha256": sha256,
                "checked_against": list(step.remote.hashes),
            },
        },
        folder / RECORD,
    )


def show(size):
    """Return a number of bytes in the hub's units, such as 3.44 GB."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
