"""The study from one command: every table, with means over seeds and 95% intervals.

a accuracy by (lambda, eta) and by rule; b AUROC by category and step; c cost until a video is
stopped; d other defences on the same videos; e robustness; f transfer between models; g wrong
labels. What is missing is made by the scripts, several at a time; what is there is not made again,
so the same command goes on where it was stopped. Recordings and detectors of reproduce.sh are used
where they are there.

Without --config the study is about the tiny world. Another model: --config my.yaml, a file like
build_x0.yaml, with --prompts and --normal_prompts unless its recordings are there.
"""

import shlex
import sys
from argparse import Namespace
from pathlib import Path

from lvd.data.config import NEEDED_BY_REPRODUCE, read_data_config
from lvd.errors import InputError, plural
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import ROOT, parse_overrides
from lvd.utils.files import fingerprint, save_yaml, sha256
from lvd.utils.processes import pick_device
from lvd_study.settings import DEFAULT, KINDS, read_study
from lvd_study.tables import TABLES

TINY = ROOT / "MagicTime" / "ckpts" / "Tiny" / "prompts"
FULL = ROOT / "MagicTime" / "outputs" / "TinyFull" / "prompts"
SAMPLE_CONFIGS = ROOT / "MagicTime" / "sample_configs"
TRAIN_CONFIG = ROOT / "train_mae.yaml"
CONFIG_NAME = "study.yaml"
NO_EFFECT_ON_VIDEOS = ("batch_size", "format", "attention", "cpu_offload", "vae_slicing", "compile")
# scale → (config of the recordings, settings of the study, folder of the prompts)
SCALES = {
    "quick": (ROOT / "build_x0.yaml", DEFAULT, TINY),
    "full": (SAMPLE_CONFIGS / "build_x0_full.yaml", SAMPLE_CONFIGS / "study_full.yaml", FULL),
}


def build_parser():
    parser = Parser(__doc__, "python reproduce_tables.py --tables a,c --jobs 2 --gpu_num -1")
    parser.add_argument("--tables", default="all", help="letters, as in a,c (default: all)")
    parser.add_argument(
        "--scale", choices=SCALES, help="of the tiny world: quick or full (default: quick)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="YAML", help="another model: a file like build_x0.yaml"
    )
    parser.add_argument("--prompts", type=Path, help="with --config: its unsafe prompts")
    parser.add_argument("--normal_prompts", type=Path, help="with --config: its normal prompts")
    parser.add_argument(
        "--study", type=Path, metavar="YAML", help="settings of the study (default: study.yaml)"
    )
    parser.add_argument(
        "--train_config",
        type=Path,
        default=TRAIN_CONFIG,
        help="settings of the trainings (default: train_mae.yaml)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the pages (default: study/tables beside the recordings)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time (default: 1)")
    parser.add_argument(
        "--gpu_num", type=int, default=0, help="CUDA device, -1 for the CPU (default: 0)"
    )
    parser.add_argument(
        "--gpus",
        metavar="N,N",
        help="instead of --gpu_num, with --jobs: CUDA devices that the tasks share",
    )
    parser.add_argument(
        "--grid_gpu_num",
        type=int,
        help="device of the grid's trainings: many small detectors may be faster on a CPU of many "
        "cores (default: --gpu_num)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes of each training of a grid (default: 1)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be run, and run nothing"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings of every sampling that change no video, such as batch_size=64 or format=gif",
    )
    return parser


def work(args):
    from lvd_study.facts import facts_of
    from lvd_study.made_of import MadeOf
    from lvd_study.one_at_a_time import one_at_a_time
    from lvd_study.runner import Runner
    from lvd_study.tables import table_module
    from lvd_study.tasks import in_order

    letters = _letters(args.tables)
    if not 1 <= args.jobs <= 256:
        raise InputError(f"--jobs {args.jobs}: from 1 to 256 are needed")
    gpus = _gpus(args)
    study = _open(args)
    out = args.out or study.work / "tables"
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file, a folder is needed")
    _make_prompts(study)  # plans read the label file
    modules = {letter: table_module(letter) for letter in letters}
    plans = {letter: module.plan(study) for letter, module in modules.items()}
    wanted = [task for plan in plans.values() for task in plan.tasks]
    count = len(in_order(wanted))
    runner = Runner(study.ledger(), study.work / "logs", args.jobs, gpus)
    if args.dry_run:
        return _tell_plan(runner, wanted)
    with one_at_a_time(study.work):
        save_yaml(_resolved(study), out / CONFIG_NAME)  # a folder that nobody may write ends it now
        made = MadeOf(out, _made_of(study))
        if _there(out):  # of an earlier run, and study.yaml is of this one
            _write_index(out, made, args, facts_of(study))
        study.write_configs()
        ran = runner.run(wanted)
        known = facts_of(study)
        written = []
        for letter, module in modules.items():
            made.forget(letter)
            written += module.section(study, plans[letter]).save(out, known)
            made.note(letter)
        written.append(_write_index(out, made, args, known))
    facts = {"tables": ", ".join(letters), "tasks": f"{ran} of {count} run now"}
    if others := made.others(_there(out)):
        facts["of other settings"] = f"{', '.join(others)}: README.md says what differs"
    summary("the study", facts, [*written, out / CONFIG_NAME])


def _there(out):
    """Return the letters of the pages that are there."""
    return [letter for letter in TABLES if (out / f"{letter}.md").is_file()]


def _write_index(out, made, args, facts):
    """Write the index of all pages that are there; return its path."""
    from lvd_study.pages import write_index
    from lvd_study.tables import table_module

    titles = {letter: table_module(letter).TITLE for letter in _there(out)}
    return write_index(out, titles, _command(args), facts, made.others(titles))


def _letters(text):
    if text == "all":
        return list(TABLES)
    letters = [word.strip() for word in text.split(",")]
    for letter in letters:
        if letter not in TABLES:
            raise InputError(f"--tables {text}: some of {','.join(TABLES)} are needed")
    return [letter for letter in TABLES if letter in letters]


def _gpus(args):
    """Return the numbers of --gpus; the first one is also --gpu_num."""
    if args.gpus is None:
        return ()
    words = [word.strip() for word in args.gpus.split(",")]
    if not all(word.isdecimal() and len(word) < 5 for word in words) or len(set(words)) < len(
        words
    ):
        raise InputError(
            f"--gpus {args.gpus}: different numbers of CUDA devices are needed, as 0,1"
        )
    numbers = [int(word) for word in words]
    for number in numbers:
        pick_device(number, "--gpus")
    args.gpu_num = numbers[0]
    return tuple(numbers)


def _open(args):
    """Return the Study of these flags."""
    from lvd.training.recipes import read_settings
    from lvd_study.study import Study

    if args.config and args.scale:
        raise InputError(
            f"--scale {args.scale}: is for the tiny world, it does not go with --config"
        )
    given = [flag for flag in ("prompts", "normal_prompts") if getattr(args, flag)]
    if given and not args.config:
        raise InputError(
            f"--{given[0]}: goes with --config (the label file belongs to the prompts)"
        )
    if len(given) == 1:
        raise InputError(f"--{given[0]}: --prompts and --normal_prompts go together")
    for flag in given:
        if not getattr(args, flag).is_file():
            raise InputError(f"--{flag} {getattr(args, flag)}: no such file")
    for kind in KINDS:  # now, and not after hours of sampling
        read_settings(args.train_config, Namespace(), kind)
    scale = "own" if args.config else args.scale or "quick"
    config, settings_path, folder = SCALES.get(scale, (args.config, DEFAULT, None))
    settings = read_study(args.study or settings_path)
    data = read_data_config(config, Namespace(), required=NEEDED_BY_REPRODUCE)
    prompts = None
    if folder:
        prompts = {kind: folder / f"{kind}.txt" for kind in ("unsafe", "normal")}
        settings.reworded = settings.reworded or _reworded(folder)
    elif given:
        prompts = {"unsafe": args.prompts.resolve(), "normal": args.normal_prompts.resolve()}
    else:
        _need_recordings(data)
    if not folder:
        _need_paths(data, config)
    if prompts:
        _need_places(data, config)
    if not 1 <= args.workers <= 256:
        raise InputError(f"--workers {args.workers}: from 1 to 256 are needed")
    grid_gpu_num = args.gpu_num if args.grid_gpu_num is None else args.grid_gpu_num
    pick_device(args.gpu_num)
    pick_device(grid_gpu_num, "--grid_gpu_num")
    return Study(
        settings=settings,
        config=Path(config).resolve(),
        data=data,
        prompts=prompts,
        work=data.out_dir.parent / "study",
        train_config=args.train_config.resolve(),
        gpu_num=args.gpu_num,
        grid_gpu_num=grid_gpu_num,
        sampler_words=_sampler_words(args.overrides),
        workers=args.workers,
        is_tiny=folder is not None,
        scale=scale,
    )


def _sampler_words(words):
    """Return the key=value words for every sampling; InputError for one that changes videos."""
    for key in parse_overrides(words):
        if key not in NO_EFFECT_ON_VIDEOS:
            raise InputError(
                f"{key}=...: changes the videos, so it belongs into the sampling YAML; here only "
                f"{', '.join(NO_EFFECT_ON_VIDEOS)} can be given"
            )
    return tuple(words)


def _need_paths(data, config):
    """InputError for a config whose model or labels cannot be given to the scripts."""
    if isinstance(data.sample_config, list):
        raise InputError(f"{config}: sample_config: the path of a sampling YAML is needed")
    for key in ("sample_config", "label_file_dir"):
        if not getattr(data, key).exists():
            raise InputError(f"{config}: {key} {getattr(data, key)}: no such file")


def _need_places(data, config):
    """InputError for recordings that the sampler would not write where the config has them."""
    for key in ("pred_x0", "normal_pred_x0"):
        if getattr(data, key).name != "pred_x0.pth":
            raise InputError(
                f"{config}: {key} {getattr(data, key)}: is to be sampled, so a path that ends in "
                "pred_x0.pth is needed"
            )
    if data.pred_x0.parent == data.normal_pred_x0.parent:
        raise InputError(f"{config}: pred_x0 and normal_pred_x0: two different folders are needed")


def _need_recordings(data):
    for key in ("pred_x0", "normal_pred_x0"):
        if not getattr(data, key).exists():
            raise InputError(
                f"{key} {getattr(data, key)}: no such file; give --prompts and --normal_prompts, "
                "and it is sampled"
            )


def _reworded(folder):
    names = {"unsafe": "reworded.txt", "normal": "reworded_normal.txt"}
    names["labels"] = "reworded_label.csv"
    return {key: str(folder / name) for key, name in names.items()}


def _make_prompts(study):
    """Draw the prompts of the full scale, as reproduce.sh does."""
    if study.scale == "full":
        from MagicTime.prepare_weights.tiny import make_prompts

        if status := make_prompts.main(["--scale", "full", "--out", str(FULL)]):
            raise SystemExit(status)


def _tell_plan(runner, wanted):
    """Print the commands that are missing."""
    missing = runner.missing(wanted)
    for task in missing:
        print(f"# {task.name}\n{task.shown()}")
    print(f"{plural(len(missing), 'task')} missing")


def _command(args):
    """The command line that made the pages, without where they lie."""
    words = ["python", "reproduce_tables.py"]
    flags = ["scale", "config", "prompts", "normal_prompts", "study"]
    if args.train_config != TRAIN_CONFIG:
        flags.append("train_config")
    for flag in flags:
        if value := getattr(args, flag):
            words += [f"--{flag}", _shown_paths(str(value))]
    return shlex.join(words)


def _resolved(study):
    """Return what the pages were made of, as study.yaml beside them says it."""
    about = {
        "scale": study.scale,
        "config": study.config,
        "train_config": study.train_config,
        "prompts": study.prompts,
        **vars(study.settings),
    }
    return _shown_paths(about)


def _made_of(study):
    """Return what a page is made of: the settings, and the content of the files that they name."""
    about = _resolved(study)
    for path in map(Path, study.inputs):
        key = f"content of {_shown_paths(path)}"
        about[key] = sha256(path) if path.is_file() else ""
    for path in study.given_recordings:
        about[f"content of {_shown_paths(path)}"] = fingerprint(path)
    return about


def _shown_paths(value):
    """Return plain values of which paths below the repository are relative to it."""
    if isinstance(value, dict):
        return {key: _shown_paths(part) for key, part in value.items()}
    path = Path(value) if isinstance(value, (str, Path)) else None
    if path and path.is_absolute():
        return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    return value


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
