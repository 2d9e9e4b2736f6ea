"""The words for what differs between two states of a thing: the one owner of such sentences.

Outputs save hashes of what they are made from. A hash tells a user nothing, so messages say what it
is the hash of.
"""

import re

from lvd.errors import typed

NOUNS = {
    "label_sha256": "label file",
    "categories": "categories",
    "pred_x0_made_by": "recording of unsafe videos",
    "normal_pred_x0_made_by": "recording of normal videos",
    "other_normal_pred_x0_made_by": "recording of normal videos",
    "rgb_matrix": "matrix that makes frames of latents",
    "eval_sha256": "eval.pth",
}
SENTENCES = {
    "label_sha256": "the label file changed",
    "pred_x0_made_by": "more unsafe videos were recorded, or the recording is another one",
    "normal_pred_x0_made_by": "more normal videos were recorded, or the recording is another one",
    "other_normal_pred_x0_made_by": "the recording of normal videos changed",
    "rgb_matrix": "the matrix that makes frames of latents changed",
    "eval_sha256": "eval.pth was made anew, or another one is given",
    "eval_label_sha256": "the label file changed",
    "detectors_sha256": "the detectors were trained anew, or others are given",
    "names_sha256": "names.pth was trained anew",
    "vae_sha256": "the VAE changed",
    "decode_dtype": "decode_dtype changed (float32 where it is not named)",
    "init": "the pre-trained encoder of --init changed",
    "init_sha256": "the pre-trained encoder of --init changed",
    "data_sha256": "the clips changed",
    "prompts_sha256": "the prompts changed",
    "without_sha256": "the words of --without changed",
    "tokenizer": "the tokenizer of --tokenizer changed",
    "recordings.pred_x0": "the recording of unsafe videos changed",
    "recordings.normal_pred_x0": "the recording of normal videos changed",
    "made_by": "the recordings changed",
    "guard.detectors": "the guard's detectors were trained anew, or others are given",
}
# Where one of the two has none.
NONE_THERE = {
    "normal_pred_x0_made_by": "a recording of normal videos came in",
    "guard": "a guard came in (--guard)",
}
NONE_NOW = {
    "normal_pred_x0_made_by": "the recording of normal videos is not given any more",
    "guard": "the guard is not given any more (--guard)",
}
HASHED = re.compile(r"(.*) \([0-9a-f]{16}\)")  # a path and the fingerprint of what is there

OTHER_DETECTORS = {
    "sha256": "they were trained anew, or are others",
    "calibration_sha256": "they were calibrated anew, or are others",
    "eval_sha256": "they were trained with another eval.pth",
}


def what_changed(key, there, now):
    """Return what a difference means, as a sentence about what happened since.

    Args:
        key: as `first_difference` names it, such as "dataset.label_sha256".
        there, now: the two values.

    Returns:
        "the label file changed"; None for keys whose values say it themselves.
    """
    last = key.rpartition(".")[2]
    if there is None and last in NONE_THERE:
        return NONE_THERE[last]
    if now is None and last in NONE_NOW:
        return NONE_NOW[last]
    found = [HASHED.fullmatch(value) for value in (there, now) if isinstance(value, str)]
    if len(found) == 2 and all(found) and found[0][1] == found[1][1]:
        return f"the files of {key} ({found[0][1]}) changed"
    return SENTENCES.get(key) or SENTENCES.get(last)


def other_detectors_words(key, there, here):
    """Return how two sets of detectors differ, for a message.

    Args:
        key: of what detectors say about themselves, such as "sha256" or "categories".
        there, here: the two values.
    """
    if key in OTHER_DETECTORS:
        return OTHER_DETECTORS[key]
    return f"{key} {typed(there)} there, {typed(here)} here"


def noun_of(key):
    """Return what a key is the hash of: "label file"."""
    return NOUNS.get(key, key)
