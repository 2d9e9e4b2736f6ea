"""Let filters that read the prompt alone score the prompts of held-out videos.

They are trained on the prompts of the videos that are not held out: words of unsafe prompts, TF-IDF
with logistic regression, and logistic regression on what the sampling model's own text encoder
makes of a prompt. The CSV has a line for each video: kind, row, and for each filter how probable it
finds it that the video is unsafe.
"""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from benchmarks.guard.baselines import prompts_of
from benchmarks.guard.prompt_filter import TextClassifier, WordList
from lvd.data.config import read_data_config
from lvd.data.kinds import KINDS
from lvd.data.split import load_split, split_path
from lvd.errors import InputError
from lvd.utils.cli import Parser, run_command, summary
from lvd.utils.files import need_no_folder, save_csv
from lvd.utils.progress import progress

WORDS, TF_IDF, EMBEDDINGS = "words", "tf_idf", "text_embeddings"  # columns of the CSV
RECORDINGS = {"unsafe": "pred_x0", "normal": "normal_pred_x0"}
AT_ONCE = 32  # prompts that are encoded together


def build_parser():
    parser = Parser(
        __doc__,
        "python -m lvd_study.prompt_scores --config build_x0.yaml --eval_dir MagicTime "
        "--out prompts.csv",
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="recordings to learn from, as build_x0.yaml"
    )
    parser.add_argument(
        "--eval_dir", type=Path, required=True, help="eval.pth or its folder: of the held-out rows"
    )
    parser.add_argument(
        "--asked", type=Path, metavar="YAML", help="other recordings to ask about (default: none)"
    )
    parser.add_argument("--asked_eval", type=Path, help="with --asked: the eval.pth of its rows")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    return parser


def work(args):
    need_no_folder(args.out, "--out")
    if (args.asked is None) != (args.asked_eval is None):
        raise InputError("--asked: --asked and --asked_eval go together")
    settings = _settings(args.config)
    prompts = _prompts(settings)
    held_out = _held_out(args.eval_dir)
    training = [
        [text for row, text in sorted(prompts[kind].items()) if row not in held_out[kind]]
        for kind in KINDS
    ]
    asked, rows = prompts, held_out
    if args.asked:
        asked, rows = _prompts(_settings(args.asked)), _held_out(args.asked_eval)
    named = [(kind, row) for kind in KINDS for row in sorted(rows[kind])]
    for kind, row in named:
        if row not in asked[kind]:
            raise InputError(f"{args.asked or args.config}: {kind} row {row} is not recorded")
    texts = [asked[kind][row] for kind, row in named]
    model = load_text_model(settings.sample_config)
    scores = {
        WORDS: WordList(*training)(texts),
        TF_IDF: TextClassifier(*training).scores(texts),
        EMBEDDINGS: EmbeddingProbe(model, *training).scores(texts),
    }
    lines = []
    for place, (kind, row) in enumerate(named):
        values = {name: float(column[place]) for name, column in scores.items()}
        lines.append({"kind": kind, "row": row, **values})
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_csv(lines, args.out)
    facts = {f"{kind} prompts learned from": len(part) for kind, part in zip(KINDS, training)}
    summary("prompts scored", {**facts, "prompts": len(lines)}, [args.out])


class EmbeddingProbe:
    """Logistic regression on text embeddings, classes balanced.

    Args:
        model: of `load_text_model`.
        unsafe, normal: [prompt] to learn from.
    """

    def __init__(self, model, unsafe, normal):
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._model = model
        self._probe = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
        )
        is_unsafe = [1] * len(unsafe) + [0] * len(normal)
        self._probe.fit(embeddings(model, [*unsafe, *normal]), is_unsafe)

    def scores(self, prompts):
        """Return how probable it is that each prompt is unsafe, [N]."""
        return self._probe.predict_proba(embeddings(self._model, prompts))[:, 1].tolist()


def load_text_model(sample_config):
    """Load the model that a sampling YAML names, on the CPU.

    All of it is loaded, as the DreamBooth file and the text adapter change the text encoder too.

    Args:
        sample_config: path of the YAML.

    Returns:
        MagicTime.utils.weights.load.MagicTime.
    """
    from MagicTime.utils.config import read_config
    from MagicTime.utils.sampling_plan import weight_paths
    from MagicTime.utils.weights.load import load_magictime

    config = read_config(sample_config)
    return load_magictime(weight_paths(config), config.make_scheduler(), **config.unet.motion)


def embeddings(model, prompts):
    """Encode prompts as the sampler does, each as the mean over its own tokens.

    Args:
        model: MagicTime.utils.weights.load.MagicTime.
        prompts: [text].

    Returns:
        float32 array [N, width].
    """
    import torch

    from MagicTime.utils.pipeline import encode

    length = model.text_encoder.config.max_position_embeddings
    parts = [prompts[start : start + AT_ONCE] for start in range(0, len(prompts), AT_ONCE)]
    means = []
    with torch.inference_mode():
        for part in progress(parts, "text embeddings", unit="batch"):
            tokens = model.tokenizer(
                part, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            weights = tokens.attention_mask[..., None].float()  # 0: padding
            states = encode(model, part)  # [n, tokens, width]
            means.append((states * weights).sum(1) / weights.sum(1))
    return np.concatenate([part.numpy() for part in means])


def _settings(path):
    needed = ("sample_config", *RECORDINGS.values())
    return read_data_config(path, Namespace(), required=needed)


def _prompts(settings):
    """Return {kind: {row: prompt}} of what is recorded."""
    return {kind: prompts_of(getattr(settings, key)) for kind, key in RECORDINGS.items()}


def _held_out(eval_dir):
    """Return {kind: {row}} of an eval.pth."""
    split = load_split(split_path(eval_dir), need_normal=True)
    return {kind: set(getattr(split, kind)) for kind in KINDS}


def main(argv=None):
    return run_command(build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
