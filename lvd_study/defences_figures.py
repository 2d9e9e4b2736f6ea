"""Figures of table d: accuracy and cost of each defence, and Safe Latent Diffusion by strength."""

import numpy as np

from lvd.utils.plots import colour_of, legend_below, rate_limits, save_figure, shown, subplots

APART = 0.28  # of two sets of videos in the line of one defence, in lines
ASIDE = 0.06  # of two lines at one strength, so that the intervals of all are seen


def save_defences(judged, path):
    """Draw accuracy and cost of each defence, a line for each.

    Args:
        judged: {name of the videos: {(defence, what it sees): OverSeeds}}, the same defences each.
        path: of the picture.
    """
    names = [defence for defence, _ in next(iter(judged.values()))]
    figure, (left, right) = subplots(
        1, 2, figsize=(11, 1.6 + 0.42 * len(names)), sharey=True, width_ratios=(3, 2)
    )
    lows = []
    for k, (name, defences) in enumerate(judged.items()):
        lines = np.arange(len(names)) + APART * (k - (len(judged) - 1) / 2)
        accuracies = [over.accuracy() for over in defences.values()]
        lows += [one.low for one in accuracies]
        look = {"color": colour_of(k), "marker": "os"[k % 2], "linestyle": "none"}
        label = f"{name.replace(' ', '-')} prompts"
        middle = [one.mean for one in accuracies]
        left.errorbar(middle, lines, xerr=_ends(accuracies), capsize=3, label=label, **look)
        costs = [float(over.costs.mean()) for over in defences.values()]
        right.plot(costs, lines, **look)
    left.set_yticks(range(len(names)), [shown(name) for name in names])
    left.invert_yaxis()  # the first line at the top, as in the table
    left.set_xlim(*rate_limits(lows, [1.0]))
    left.set_xlabel("accuracy, with its 95% interval")
    right.set_xlim(-0.04, 1.04)
    right.set_xlabel("cost: share of the steps that\nan unsafe video takes")
    legend_below(figure, left)
    save_figure(figure, path)


def save_strengths(guided, path):
    """Draw what Safe Latent Diffusion leaves and what it changes, by strength.

    Args:
        guided: [Guided].
        path: of the picture.
    """
    figure, (left, right) = subplots(1, 2, figsize=(11, 4.8))
    names = [one.name for one in guided]
    lines = {
        "unsafe": [one.still_unsafe("by_video") for one in guided],
        "unsafe and not stopped by LVD": [one.handed_out("by_video") for one in guided],
        "normal, stopped by LVD": [one.guard.false_positives() for one in guided],
    }
    for k, (label, estimates) in enumerate(lines.items()):
        _line(left, names, estimates, k, label)
    left.set_ylim(-0.02, 1.02)
    left.set_ylabel("share of the videos")
    left.set_title("Unsafe videos handed out, normal ones stopped")
    for k, kind in enumerate(("unsafe", "normal")):
        _line(right, names, [one.change(kind) for one in guided], 3 + k, f"{kind} prompts")
    right.set_ylim(bottom=0)
    right.set_ylabel("in standard deviations")
    right.set_title("Change of the finished latents")
    for axis in (left, right):
        axis.set_xlabel("strength of Safe Latent Diffusion")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))  # over no data
    save_figure(figure, path)


def _line(axis, names, estimates, k, label):
    """A line with its intervals."""
    places = np.arange(len(names)) + ASIDE * (k % 3 - 1)
    middle = [one.mean for one in estimates]
    look = {"color": colour_of(k), "marker": "osD^v"[k], "capsize": 3, "elinewidth": 1}
    axis.errorbar(places, middle, yerr=_ends(estimates), label=label, **look)
    axis.set_xticks(range(len(names)), [shown(name) for name in names])


def _ends(estimates):
    """How far the intervals reach below and above their means, [2, N]."""
    below = [max(0.0, one.mean - one.low) for one in estimates]
    above = [max(0.0, one.high - one.mean) for one in estimates]
    return np.array([below, above])
