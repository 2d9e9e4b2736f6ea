"""What identifies a set of clips: the recordings and labels that they were made from."""

from lvd.data.split import need_label_file
from lvd.errors import InputError

MADE_BY = ("label_sha256", "pred_x0_made_by", "normal_pred_x0_made_by")


def rgb_identity(numbers):
    """What identifies clips besides their recordings: the matrix (`LatentToRGB.numbers`) of rgb
    ones."""
    return {"rgb_matrix": numbers} if numbers else {}


def need_same_recordings(where, before, now, advice):
    """InputError when clips were made of other recordings, whose rows mean other videos.

    before, now: `made_by` of two sets of clips; what either does not know is taken for the same.
    """
    for key in MADE_BY[1:]:
        there, here = before.get(key), now.get(key)
        if there and here and there != here:
            raise InputError(
                f"{where}: trained on other recordings than the clips here ({key} {there[:12]}... "
                f"there, {here[:12]}... now), whose rows mean other videos; {advice}"
            )


def need_same_labels(eval_path, split, source):
    """InputError when eval.pth was drawn from another label file than the source's clips: see
    `need_label_file`."""
    need_label_file(eval_path, split, source.made_by.get("label_sha256"), source.labelled_by)


def need_same_rgb(where, before, now):
    """InputError when frames were made with another rgb_matrix. before, now: as of
    `need_same_recordings`."""
    there, here = before.get("rgb_matrix"), now.get("rgb_matrix")
    if there and here and there != here:
        raise InputError(
            f"{where}: trained on frames of another rgb_matrix than the clips here; use that one, "
            "or train it again"
        )
