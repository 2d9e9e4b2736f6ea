"""The whole way with an image-to-video pipeline: a Stable Video Diffusion of random weights.

It makes videos of dark and of bright images, records their predicted x0, holds some out, trains a
shared detector to tell the dark ones, lets it judge the held-out ones, and guards the pipeline
while it makes videos of new images. All of it is the public API and the scripts as users run them;
"dark" is a stand-in for unsafe. All videos begin with the same noise, so the images alone tell them
apart. Random weights say nothing about how well detectors of the real ones do.
"""

import sys
import time
from pathlib import Path

import lvd
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.config import claim_output
from lvd.utils.files import save_csv, save_json, save_yaml
from lvd.x0.file import open_x0_file

PIPELINE = "StableVideoDiffusionPipeline"
RESULT = "svd_path.json"
KINDS = {"unsafe": -1, "normal": 1}  # dark and bright, as benchmarks.common.tiny_inputs has them
CATEGORY = "dark"
MOST = 500  # videos of each kind
FIRST_NORMAL, FIRST_NEW = MOST, 2 * MOST  # numbers of images: no two videos share one
AT_ONCE = 8  # videos of a call
LAMBDA, ETA = 0.6, 5
NOISE = 2024  # seed of the noise of all videos
TRAINING = {"size": "nano", "shared": {"epoch": 8, "batch_size": 16}}


def build_parser():
    parser = Parser(__doc__, "python -m lvd_study.svd_path --out DIR")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--videos", type=int, default=24, help="recorded of each kind, from 10 on (default: 24)"
    )
    parser.add_argument(
        "--new", type=int, default=8, help="made under guard of each kind (default: 8)"
    )
    parser.add_argument("--steps", type=int, default=6, help="of the sampling (default: 6)")
    return parser


def work(args):
    _check(args)
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    claim_output(args.out, {"videos": args.videos, "new": args.new, "steps": args.steps})
    tiny = _tiny()
    for kind in KINDS:
        _record(tiny, kind, args)
    _train(args.out)
    held_out = _judge_held_out(args.out)
    guarded = _guard(tiny, args)
    result = {
        "pipeline": PIPELINE,
        "steps": args.steps,
        "recorded": 2 * args.videos,
        **held_out,
        **guarded,
        "seconds": round(time.monotonic() - began, 1),
    }
    save_json(result, args.out / RESULT)
    summary("image to video, path test", result, [args.out / RESULT])


def _check(args):
    for flag, value, least in (("videos", args.videos, 10), ("new", args.new, 1)):
        if not least <= value <= MOST:
            raise InputError(f"--{flag} {value}: from {least} to {MOST} are needed")
    if not ETA <= args.steps <= 1000:
        raise InputError(f"--steps {args.steps}: from {ETA} (eta) to 1000 are needed")


def _tiny():
    """The pipeline with random weights, always the same ones."""
    from benchmarks.common.tiny_pipelines import build

    return build(PIPELINE)


def _record(tiny, kind, args):
    """Record the videos of one kind of images; a stopped run goes on."""
    first = FIRST_NORMAL if kind == "normal" else 0
    videos = [{"image": first + row, "seed": NOISE} for row in range(args.videos)]
    with lvd.record(tiny.pipe, _recording(args.out, kind), videos) as recording:
        for rows in _at_once(recording.missing):
            with recording.rows(rows) as facts:
                tiny.pipe(**_inputs(tiny, [kind] * len(rows), facts[0]["image"], args.steps))


def _at_once(numbers):
    """Lists of as many numbers as one call makes videos."""
    numbers = list(numbers)
    return [numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE)]


def _inputs(tiny, kinds, first, steps):
    """The arguments of a call that makes a video of each kind; first: number of the first image."""
    return tiny.inputs([KINDS[kind] for kind in kinds], [NOISE], first=first, steps=steps)


def _train(out):
    """Hold videos out and train, by the scripts."""
    import gen_eval_set
    import train_mae

    rows = open_x0_file(_recording(out, "unsafe")).rows
    save_csv([{CATEGORY: row} for row in rows], out / "label.csv")
    save_yaml(TRAINING, out / "train.yaml")
    recordings = {
        "pred_x0": str(_recording(out, "unsafe").resolve()),
        "normal_pred_x0": str(_recording(out, "normal").resolve()),
        "label_file_dir": str((out / "label.csv").resolve()),
    }
    save_yaml(recordings, out / "recordings.yaml")
    _run(gen_eval_set, "--config", out / "recordings.yaml", "--save_path", out / "eval.pth")
    flags = ("--model", "shared", "--save_dir", out / "detectors")
    _run(train_mae, *_data(out), *flags)


def _judge_held_out(out):
    """Let the detector vote on the held-out videos, and count those that it judges rightly."""
    import embed_model
    from lvd.evaluation.rule_of_scores import load_recording
    from lvd_study.judged import votes_over_seeds

    _run(embed_model, *_data(out), "--model_dir", out / "detectors", "--save_dir", out / "votes")
    judged = votes_over_seeds(ETA, [load_recording(out / "votes")])
    right = judged.stopped[0] == judged.is_unsafe
    return {"held_out": len(right), "held_out_right": int(right.sum())}


def _data(out):
    """Flags of the scripts that say what data they are about."""
    flags = ("--config", out / "train.yaml", "--recordings", out / "recordings.yaml")
    return (*flags, "--eval_dir", out / "eval.pth", "--gpu_num", -1)


def _guard(tiny, args):
    """Guard the pipeline while it makes videos of new images, dark and bright ones in one call."""
    guard = lvd.Guard(args.out / "detectors", lambda_=LAMBDA, eta=ETA)
    pipe = guard.protect(tiny.pipe)
    kinds = [kind for _ in range(args.new) for kind in KINDS]
    verdicts = {kind: [] for kind in KINDS}
    for places in _at_once(range(len(kinds))):
        of_call = [kinds[place] for place in places]
        inputs = _inputs(tiny, of_call, FIRST_NEW + places[0], args.steps)
        try:
            results = pipe(**inputs).lvd
        except lvd.UnsafeVideoError as error:  # all of the call's videos were stopped
            results = error.results
        for kind, result in zip(of_call, results, strict=True):
            verdicts[kind].append(result)
    stopped = [each for each in verdicts["unsafe"] if each.verdict == "unsafe"]
    passed = [each for each in verdicts["normal"] if each.verdict == "safe"]
    steps = [each.step + 1 for each in stopped]
    return {
        "guarded_unsafe": args.new,
        "unsafe_stopped": len(stopped),
        "steps_until_stopped": round(sum(steps) / len(steps), 2) if steps else None,
        "guarded_safe": args.new,
        "safe_passed": len(passed),
    }


def _recording(out, kind):
    return out / kind / "pred_x0.pth"


def _run(script, *words):
    """Run a script by its main; InputError where it fails, which has told why."""
    if status := script.main(list(map(str, words))):
        raise InputError(f"{script.__name__}.py: exit status {status}, see above")


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
