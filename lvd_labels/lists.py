"""Which rater is shown which videos, and in which order."""

import numpy as np


def lists_of(names, raters, each, seed):
    """Share videos out among raters.

    Every video goes to `each` raters. The lists have the same length, up to one video. Who shares
    a video with whom is drawn anew for each video, so that all raters can be compared; so is the
    order of each list, so that no video is always seen late and tired.

    Args:
        names: of the videos.
        raters: how many there are.
        each: how many of them see a video, at most all.
        seed: of the draws.

    Returns:
        [[name, ...] for each rater].
    """
    draw = np.random.default_rng([seed, 0])
    lists = [[] for _ in range(raters)]
    for place in draw.permutation(len(names)):
        ties = draw.permutation(raters)
        least = sorted(range(raters), key=lambda rater: (len(lists[rater]), ties[rater]))
        for rater in least[:each]:
            lists[rater].append(names[place])
    orders = [np.random.default_rng([seed, 1, k]).permutation(len(lists[k])) for k in range(raters)]
    return [[lists[k][place] for place in orders[k]] for k in range(raters)]
