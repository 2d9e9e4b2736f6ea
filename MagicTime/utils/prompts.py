"""Which prompts, which negative prompts, and what the videos are called.

The first source that is given counts: a CSV (column name has the prompt, videoid the video's name),
a JSON (caption, video_id, sen_id; the video is called {video_id}-{sen_id}, as in MagicTime), a text
file with one prompt a line (quotes around every line are none of the prompts), the YAML's own list
(videos 0000, 0001, ...). A prompt's place in its source is its row in pred_x0.pth; labels refer to
it.
"""

import hashlib

from lvd.errors import InputError, shorten
from lvd.utils.files import read_text
from lvd.x0.sidecar import numbered_name
from MagicTime.utils import config as cfg
from MagicTime.utils.prompt import Prompt, clean, need_prompt_file, numbered
from MagicTime.utils.prompt_tables import read_csv, read_json
from MagicTime.utils.quotes import say, take_quotes_off


def read_source(settings, path, run_csv=None, run_json=None):
    """Read the prompts of a run.

    Args:
        settings: SamplingSettings (file_path, prompt).
        path: of the YAML, for messages.
        run_csv, run_json: files that win over the settings; one of them at most.

    Returns:
        [Prompt], one a video.
    """
    if run_csv and run_json:
        raise InputError("--run-csv and --run-json: one of them is needed, not both")
    if run_csv:
        return read_csv(cfg.find(run_csv))
    if run_json:
        return read_json(cfg.find(run_json))
    if settings.file_path:
        return read_text_file(cfg.find(settings.file_path))
    prompts = settings.prompt
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if (
        not isinstance(prompts, list)
        or not prompts
        or not all(isinstance(p, str) and p.strip() for p in prompts)
    ):
        raise InputError(
            f"{path}: file_path or a list of prompts is needed (key 'prompt', or --file_path, "
            "--run-csv, --run-json)"
        )
    return numbered(
        [clean(text, f"{path}: prompt {row} (from 0)") for row, text in enumerate(prompts)]
    )


def digest(prompts):
    """Return the hex sha256 of the prompts, and of the names that are not just the row."""
    lines = []
    for row, prompt in enumerate(prompts):
        named = prompt.name != numbered_name(row)
        lines.append(f"{prompt.text}\0{prompt.name}" if named else prompt.text)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def as_recorded(prompts, before):
    """Return the prompts of a folder that is filled, as they were when its first video was made.

    Earlier versions took the quotes around prompts for a part of them. Such a folder keeps them.

    Args:
        prompts: [Prompt].
        before: the folder's config, {"prompts": number, "prompts_sha256": hash, ...}.

    Returns:
        [Prompt], with their quotes where the folder's were sampled with them.
    """
    written = [Prompt(p.written or p.text, p.name) for p in prompts]
    count = before.get("prompts")
    if written == prompts or type(count) is not int or count < 1:
        return prompts
    if digest(written[:count]) != before.get("prompts_sha256"):
        return prompts
    say("the folder's first videos were sampled with the quotes around their prompts: they stay on")
    return written


def read_prompts(path):
    """Read the texts of a file; see `read_text_file`."""
    return [prompt.text for prompt in read_text_file(path)]


def read_text_file(path):
    """Read the Prompts of a file, one a line; row i is line i + 1.

    A newline at the end is fine, a blank line is an InputError. Quotes around every line are taken
    off.
    """
    need_prompt_file(path)
    lines = read_text(path).rstrip("\r\n").split("\n")
    if lines == [""]:
        raise InputError(f"{path}: no prompts in this file, one a line is needed")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(
                f"{path}: line {number} is blank; rows are counted by line, so every line needs a "
                "prompt"
            )
    texts = [clean(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]
    bare = take_quotes_off(texts, path)
    if bare is texts:
        return numbered(texts)
    bare = [clean(text, f"{path}: line {number}") for number, text in enumerate(bare, 1)]
    pairs = zip(numbered(bare), texts, strict=True)
    return [Prompt(prompt.text, prompt.name, written) for prompt, written in pairs]


def words_cut(model, text):
    """Return the end of `text` that the text encoder does not read; "" when it reads all."""
    ids = model.tokenizer(text, verbose=False).input_ids
    length = model.text_encoder.config.max_position_embeddings
    return model.tokenizer.decode(ids[length - 1 : -1]) if len(ids) > length else ""


def negatives_of(settings, count, path):
    """Return [negative prompt] of `count` prompts; a single one serves all."""
    negatives = settings.n_prompt
    negatives = [negatives] if isinstance(negatives, str) else negatives
    if not isinstance(negatives, list) or not all(isinstance(n, str) for n in negatives):
        raise InputError(
            f"{path}: n_prompt={shorten(negatives)}, a text or a list of texts is needed"
        )
    return one_or_each(negatives or [""], count, "n_prompt", path)


def one_or_each(values, count, key, path):
    """Return a value for each of `count` prompts; a single one serves all.

    Raises:
        InputError: another number of values; it names the YAML at `path` and the `key`.
    """
    if len(values) not in (1, count):
        raise InputError(
            f"{path}: {key} has {len(values)} entries, 1 or {count} (one per prompt) are needed"
        )
    return values * count if len(values) == 1 else values
