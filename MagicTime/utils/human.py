"""--human: prompts are typed one by one (or piped in); each is sampled at once into a folder."""

import io
import shutil
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from lvd.errors import InputError
from lvd.utils.cli import summary
from lvd.utils.disk import disk_problem
from lvd.utils.files import save_text
from MagicTime.utils.config import RECORDINGS
from MagicTime.utils.prompt import clean
from MagicTime.utils.prompts import negatives_of, words_cut
from MagicTime.utils.seeds import seeds_of

QUESTION = "prompt (an empty line, 'exit' or Ctrl-D ends): "


def config_of(config, number):
    """Make the Config of one prompt.

    Args:
        config: Config of the session.
        number: of the prompt, from 0; it decides the seed.

    Raises:
        InputError: several seeds or negative prompts. How many prompts will come is not known.
    """
    settings = config.settings
    for key in RECORDINGS:
        if isinstance(getattr(settings, key), str):
            raise InputError(
                f"{config.where(key)}: {key} names one file, with --human each prompt has a "
                "recording of its own; true or false is needed"
            )
    for key in ("seed", "n_prompt"):
        values = getattr(settings, key)
        if isinstance(values, list) and len(values) > 1:
            hint = " (--seed gives one)" if key == "seed" else ""
            raise InputError(
                f"{config.path}: {key} has {len(values)} entries, with --human one serves all "
                f"prompts{hint}"
            )
    seed = seeds_of(settings, number + 1, config.path)[number]
    negatives_of(settings, 1, config.path)
    one = replace(settings, seed=[seed], seed_per_prompt=False, file_path="", prompt=[])
    return replace(config, settings=one)


def converse(model, out, sample_one):
    """Ask for prompts until there are no more, and sample each of them.

    A prompt that fails is told, its folder is removed, and the session goes on; the folder of an
    interrupted one is removed as well.

    Args:
        model: the loaded MagicTime.
        out: folder of the session. A prompt goes to out/0000, out/0001, ...: the first free number.
        sample_one: function (text, folder, number) that samples a prompt into its empty folder and
            returns the paths that it wrote; without videos/ where the guard stopped the video.

    Raises:
        InputError: at the end, when a prompt failed.
    """
    made, stopped, failed, number = 0, 0, 0, 0
    for line in _lines():
        try:
            text = clean(line, "this prompt")
            if "\ufffd" in text:
                raise InputError("this prompt: not text in the terminal's encoding")
        except InputError as error:
            _tell(error)
            failed += 1
            continue
        if left_out := words_cut(model, text):
            print(f"too long, these words are left out: {left_out}", flush=True)
        number, folder = _free_folder(Path(out), number)
        try:
            with ExitStack() as undo:
                undo.callback(shutil.rmtree, folder, ignore_errors=True)
                save_text(f"{text}\n", folder / "prompt.txt")
                paths = sample_one(text, folder, number)
                undo.pop_all()  # whole: nothing to undo
        except (InputError, OSError) as error:
            _tell(error)
            failed += 1
            continue
        made += 1
        stopped += folder / "videos" not in paths
        for path in paths:
            print(f"  wrote {path}", flush=True)
    facts = {"videos": f"{made - stopped} new"}
    if stopped:
        facts["stopped"] = stopped
    summary("session ended", facts, [out] if made else [])
    if failed:
        raise InputError(f"{failed} of {made + failed} prompts gave no video (said above)")


def _lines():
    """Yield what the user types, line by line, until an empty line, exit or the end."""
    if sys.stdin is None:
        raise InputError("--human: there is no standard input to read prompts from")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Odd bytes make one bad prompt, not the end of the session.
        sys.stdin.reconfigure(errors="replace")
    typed = sys.stdin.isatty()
    if typed:
        with suppress(ImportError):  # not on every platform
            import readline  # noqa: F401  (input() then has a history and arrow keys)
    while True:
        try:
            line = input(QUESTION)
        except EOFError:
            print()
            return
        if not typed:
            print(line, flush=True)
        if line.strip().lower() in ("", "exit"):
            return
        yield line


def _free_folder(out, number):
    """Make the first free folder from `number` on: (its number, its path)."""
    while True:
        folder = out / f"{number:04d}"
        try:
            folder.mkdir(parents=True)
            return number, folder
        except FileExistsError:
            number += 1


def _tell(error):
    """Say that a prompt gave no video."""
    told = disk_problem(error) if isinstance(error, OSError) else error
    print(f"error: {told}", file=sys.stderr, flush=True)
