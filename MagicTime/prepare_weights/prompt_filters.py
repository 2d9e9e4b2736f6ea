"""Which captions may become prompts: their text, length, scores and words."""

import re
import unicodedata
from collections import Counter

from lvd.errors import InputError, shorten
from lvd.utils.files import read_text
from MagicTime.utils.quotes import PAIRS

NO_CAPTION = "no caption"
CONTROLS = "control characters"
FEW_WORDS = "fewer words than --min_words"
TOO_LONG = "more tokens than --max_tokens"
LISTED = "a word of --without"
LONGEST = 1 << 20  # characters of a caption that is looked at: as of a line of JSON lines
WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
LETTERS = re.compile(r"[A-Za-z]+")


class Filters:
    """The filters of a run, in the order in which they are asked.

    Args:
        min_words: of a caption.
        max_tokens: of a caption, with the two that mark its beginning and end.
        tokenizer: transformers' CLIPTokenizer; None: tokens are estimated.
        minima: {score: smallest value}; a caption without that score is left out.
        without: words of `read_words`.

    Attributes:
        dropped: Counter of the captions that each filter left out.
        passed: number of captions that passed.
    """

    def __init__(self, min_words=1, max_tokens=77, tokenizer=None, minima=None, without=()):
        self.dropped = Counter()
        self.passed = 0
        self._min_words = min_words
        self._max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._minima = minima or {}
        self._single = {words[0] for words in without if len(words) == 1}
        self._phrases = [f" {' '.join(words)} " for words in without if len(words) > 1]

    def clean(self, caption, scores):
        """Return a caption as one line of text; None, and counted, if a filter leaves it out.

        Args:
            caption: value of the dataset.
            scores: {score: value of the dataset}.
        """
        is_long = isinstance(caption, str) and len(caption) > LONGEST
        text = "" if is_long else one_line(caption)
        reason = TOO_LONG if is_long else self._reason(text, scores)
        if reason:
            self.dropped[reason] += 1
            return None
        self.passed += 1
        return text

    def _reason(self, text, scores):
        if not text:
            return NO_CAPTION
        if any(unicodedata.category(one) in ("Cc", "Cs") for one in text):
            return CONTROLS
        for name, smallest in self._minima.items():
            value = _number(scores.get(name))
            if value is None or value < smallest:
                return f"less than --min_{name}"
        words = words_of_text(text)
        if len(words) < self._min_words:
            return FEW_WORDS
        if self._too_long(text):
            return TOO_LONG
        if self._listed(words):
            return LISTED
        return None

    def _too_long(self, text):
        # Each token of CLIP's is at least one byte: most captions need not be tokenized.
        if len("".join(text.lower().split()).encode()) + 2 <= self._max_tokens:
            return False
        if self._tokenizer is None:
            return estimated_tokens(text) > self._max_tokens
        return len(self._tokenizer(text, verbose=False).input_ids) > self._max_tokens

    def _listed(self, words):
        if not self._single.isdisjoint(words):
            return True
        line = f" {' '.join(words)} "
        return any(phrase in line for phrase in self._phrases)


def one_line(caption):
    """Return a caption as one line: runs of spaces and line breaks are one space, quotes around it
    are none of it. "" for what is no text."""
    if not isinstance(caption, str):
        return ""
    text = " ".join(caption.replace("\ufeff", " ").split())
    while len(text) > 1 and PAIRS.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def estimated_tokens(text):
    """Return about how many tokens CLIP's tokenizer makes, rather more than fewer.

    Two letters are one token, though most English words are one as a whole; any other character has
    a token for each of its bytes.
    """
    marks = 2  # of the beginning and the end
    letters = sum((len(run) + 1) // 2 for run in LETTERS.findall(text))
    others = "".join(LETTERS.sub("", text).split())
    return marks + letters + len(others.encode())


def words_of_text(text):
    """Return the words of a text as they are compared: without case, accents in one form."""
    # Marks that nobody sees would take a word apart.
    seen = "".join(one for one in text if one.isascii() or unicodedata.category(one) != "Cf")
    # Folding may give letters that are not in that form.
    folded = unicodedata.normalize("NFKC", seen).casefold()
    return WORD.findall(unicodedata.normalize("NFKC", folded).replace("\u2019", "'"))


def read_words(path):
    """Read the file of --without: a word, or several that follow each other, in each line.

    Returns:
        [(word, ...)], without repeats.

    Raises:
        InputError: no words, or a line without one; the line itself is not shown.
    """
    found = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        words = tuple(words_of_text(line))
        if not words:
            raise InputError(f"--without {path}: line {number} holds no word (letters or digits)")
        found[words] = None
    if not found:
        raise InputError(f"--without {path}: no words in this file, one a line is needed")
    return list(found)


def read_tokenizer(folder):
    """Load the CLIP tokenizer in a folder such as Stable Diffusion's tokenizer/.

    Raises:
        InputError: it holds none.
    """
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise InputError(f"--tokenizer {folder}: no {name} there, a CLIP tokenizer is needed")
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer("?")
    except Exception as error:  # of damaged files, whatever the library makes of them
        raise InputError(
            f"--tokenizer {folder}: not a CLIP tokenizer ({shorten(str(error))})"
        ) from error
    return tokenizer


def _number(value):
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == number else None  # not a NaN
