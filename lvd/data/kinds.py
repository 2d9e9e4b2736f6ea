"""The two kinds of videos, and the two ways in which files name them."""

KIND_UNSAFE = "unsafe"  # in eval.pth, in the sources of clips, in what a detector says of its rows
KIND_NORMAL = "normal"
KINDS = (KIND_UNSAFE, KIND_NORMAL)

LABEL_UNSAFE = "1"  # in results.pth and scores.pth, as the paper's code writes them
LABEL_NORMAL = "0"
KIND_OF_LABEL = {LABEL_UNSAFE: KIND_UNSAFE, LABEL_NORMAL: KIND_NORMAL}
