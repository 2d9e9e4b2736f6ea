"""Let the detectors vote on the held-out videos: results.pth, {"1": {index: [vote] * S}, "0":
{index: [vote] * S}}.

"1" are unsafe videos, "0" normal ones. The vote of a step is 1 if the detector of any category says
unsafe. Probabilities go to scores.pth beside it. Both are written when all is scored; a stopped run
goes on with the step it was at, a finished one is left alone as long as no file that it read has
changed. A folder holds the votes of one set of detectors, split and operating point.
"""

import hashlib
import json
import sys
from argparse import Namespace
from pathlib import Path

from lvd.data.config import DEFAULT_CONFIG as DATA_CONFIG
from lvd.data.config import read_data_config
from lvd.data.kinds import LABEL_NORMAL, LABEL_UNSAFE
from lvd.data.labels import read_labels
from lvd.data.split import NAME, load_split, split_path
from lvd.errors import InputError
from lvd.evaluation.vote_report import RESULTS, SCORES, load_results, votes_sha256
from lvd.training.recipes import DEFAULT_CONFIG, read_settings
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, claim_output, versions
from lvd.utils.files import load_json, load_torch, save_json, save_torch, sha256
from lvd.utils.processes import pick_device
from lvd.utils.progress import progress

INPUTS = "inputs.json"  # by which finished votes are known to be those of today's files
UNFINISHED = "unfinished"  # folder of the steps scored so far
MAY_DIFFER = ("model_dir", "data_dir", "versions")  # keys of config.yaml: the votes stay the same


def build_parser():
    parser = Parser(
        __doc__,
        "python embed_model.py --model_dir MagicTime/detectors --eval_dir MagicTime/eval.pth "
        "--data_dir MagicTime --save_dir MagicTime/results",
    )
    magictime = ROOT / "MagicTime"
    parser.add_argument(
        "--model_dir", type=Path, default=magictime / "detectors", help="detectors of train_mae.py"
    )
    parser.add_argument(
        "--eval_dir",
        type=Path,
        default=magictime / NAME,
        help="eval.pth or its folder (default: MagicTime/eval.pth)",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="folder of eval_set/ and eval_normal/, or eval_set (default: MagicTime)",
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="YAML",
        help="instead: a build_x0.yaml, to read its recordings; build_eval_set.py is not needed",
    )
    parser.add_argument(
        "--save_dir", type=Path, default=magictime / "results", help="default: MagicTime/results"
    )
    parser.add_argument(
        "--operating_point",
        help="argmax: raw probability >= 0.5, as in the paper; validation: each detector's own threshold; "
        "calibrated: calibrated probability >= 0.5; a number like 0.9: calibrated probability >= 0.9 "
        "(default: the config's, else argmax)",
    )
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        help="settings (default: train_mae.yaml beside this script)",
    )
    parser.add_argument(
        "--allow_other_eval",
        action="store_true",
        help=(
            "accept detectors trained with another or an unknown eval.pth: held-out clips may "
            "have leaked"
        ),
    )
    parser.add_argument(
        "--label_file_dir",
        type=Path,
        help="label file of the split, noted in scores.pth for AUROC by "
        "category (default: build_x0.yaml's, if it is the split's)",
    )
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    return parser


def work(args):
    from lvd.data.identity import need_same_labels
    from lvd.evaluation.votes import StepScores, VoteRun, score_file

    settings = read_settings(args.config, args)
    eval_path = split_path(args.eval_dir)
    split = load_split(eval_path, need_normal=True)
    device = pick_device(args.gpu_num)
    source = _source(args, device)
    need_same_labels(eval_path, split, source)
    members = _members(args.label_file_dir, source, split)
    embedding = VoteRun(
        args.model_dir,
        source,
        split,
        sha256(eval_path),
        settings["operating_point"],
        device,
        args.allow_other_eval,
    )
    config = {
        "model_dir": str(args.model_dir),
        "detectors_sha256": embedding.bank.sha256(),
        "eval_sha256": embedding.eval_sha256,
        "data_dir": str(args.recordings or args.data_dir or ROOT / "MagicTime"),
        **{key: value for key, value in source.made_by.items() if key != "label_sha256"},
        "operating_point": embedding.operating_point,
        "representation": embedding.representation,
        "versions": versions(),
    }
    stamp = _stamp(embedding, source)
    if (args.save_dir / "config.yaml").exists():
        claim_output(args.save_dir, config, ignore=MAY_DIFFER)
        if votes := _finished(args.save_dir, stamp, members):
            title = (
                f"votes found finished in {args.save_dir}: no file that they were made of has "
                "changed"
            )
            return _tell(title, embedding, votes, [])
    same = {key: value for key, value in config.items() if key not in MAY_DIFFER}
    # Also what only this run may do: detectors that it accepts are not checked again.
    embedding.finished = StepScores(
        args.save_dir / UNFINISHED, {**same, "allow_other_eval": args.allow_other_eval}
    )
    for step in (bar := progress(embedding, "votes", unit="step")):
        bar.set_postfix_str(f"step {step}")
    votes = embedding.votes()
    claim_output(
        args.save_dir, config, ignore=MAY_DIFFER
    )  # only now: a run that fails has claimed nothing
    save_torch({**score_file(embedding), "members": members}, args.save_dir / SCORES)
    save_torch(votes, args.save_dir / RESULTS)
    save_json({"files_sha256": stamp, "votes_sha256": votes_sha256(votes)}, args.save_dir / INPUTS)
    embedding.finished.delete()
    return _tell(
        "votes recorded", embedding, votes, [args.save_dir / RESULTS, args.save_dir / SCORES]
    )


def _tell(title, embedding, votes, written):
    share = {
        label: sum(map(sum, rows.values())) / (len(rows) * len(embedding))
        for label, rows in votes.items()
    }
    summary(
        title,
        {
            "detectors": f"{len(embedding.groups)} categories x {len(embedding)} steps",
            "operating point": embedding.operating_point,
            "unsafe videos": (
                f"{len(votes[LABEL_UNSAFE])}, {share[LABEL_UNSAFE]:.0%} of their steps vote unsafe"
            ),
            "normal videos": (
                f"{len(votes[LABEL_NORMAL])}, {share[LABEL_NORMAL]:.0%} of their steps vote unsafe"
            ),
        },
        written,
    )


def _stamp(embedding, source):
    """Hex digest of the names, sizes and times of change of the detectors' and clips' files: any
    that is written anew changes it. None where they are not known."""
    if (clips := source.files()) is None:
        return None
    stamps = [
        (*path.parts[-3:], path.stat().st_size, path.stat().st_mtime_ns)
        for path in [*sorted({member.path for member in embedding.bank.members.values()}), *clips]
    ]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()


def _finished(folder, stamp, members):
    """The votes in `folder`, if they were made of the same files; None else, and where one of its
    files is damaged."""
    if stamp is None or not all((folder / name).exists() for name in (RESULTS, SCORES, INPUTS)):
        return None
    try:
        votes, _ = load_results(folder)
        scores, found = load_torch(folder / SCORES), load_json(folder / INPUTS)
    except InputError:
        return None
    made_of = {"files_sha256": stamp, "votes_sha256": votes_sha256(votes)}
    told = {"members": members, "votes_sha256": made_of["votes_sha256"]}
    same = isinstance(scores, dict) and {key: scores.get(key) for key in told} == told
    return votes if same and found == made_of else None


def _source(args, device):
    """Where the held-out clips come from: the recordings, or the folders of build_eval_set.py."""
    from lvd.data.sources import HeldOutFolders

    if args.recordings is None:
        return HeldOutFolders(args.data_dir or ROOT / "MagicTime")
    if args.data_dir is not None:
        raise InputError(
            f"--data_dir {args.data_dir}: clips come from --recordings {args.recordings}; give "
            "one of the two"
        )
    from MagicTime.utils.clip_sources import open_recordings

    return open_recordings(args.recordings, device)


def _members(path, source, split):
    """{group: [held-out rows of that category]} by the label file the split was drawn from; {} when
    it is not at hand."""
    given = path is not None
    if not given:
        path = source.label_file
        if path is None and DATA_CONFIG.exists():
            path = read_data_config(DATA_CONFIG, Namespace()).label_file_dir
        if path is None or not path.exists() or sha256(path) != split.label_sha256:
            return {}
    labels = read_labels(path)
    if given and split.label_sha256 and sha256(path) != split.label_sha256:
        raise InputError(
            f"--label_file_dir {path}: not the label file that eval.pth was drawn from"
        )
    return {
        str(group): [str(row) for row in split.unsafe if row in column]
        for group, column in enumerate(labels.columns, 1)
    }


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
