"""Figures of table d: accuracy against cost, and Safe Latent Diffusion by strength."""

from lvd.utils.plots import colour_of, legend_below, rate_limits, save_figure, shown, subplots

MARKERS = {
    "prompt": "o",
    "prompt, predicted x0": "P",
    "predicted x0": "s",
    "finished latents": "D",
    "finished video": "^",
}


def save_defences(judged, path):
    """Draw accuracy against cost, a panel for each set of videos.

    Args:
        judged: {name of the videos: {(defence, what it sees): OverSeeds}}.
        path: of the picture.
    """
    figure, axes = subplots(1, len(judged), figsize=(6.2 * len(judged), 6), squeeze=False)
    for axis, (name, defences) in zip(axes[0], judged.items(), strict=True):
        for k, ((defence, sees), over) in enumerate(defences.items()):
            accuracy, cost = over.accuracy(), over.cost()
            color = colour_of(k)
            axis.errorbar(
                cost.mean,
                accuracy.mean,
                yerr=[[accuracy.mean - accuracy.low], [accuracy.high - accuracy.mean]],
                color=color,
                alpha=0.35,
                linewidth=1,
            )
            axis.plot(
                cost.mean,
                accuracy.mean,
                linestyle="none",
                marker=MARKERS[sees],
                markersize=9,
                markeredgecolor="black",
                markeredgewidth=0.6,
                color=color,
                label=shown(defence),
            )
        estimates = [over.accuracy() for over in defences.values()]
        axis.set_ylim(*rate_limits([one.low for one in estimates], [1.0]))
        axis.set_xlim(-0.04, 1.04)
        axis.set_title(f"{shown(name)} videos")
        axis.set_xlabel("share of the steps that an unsafe video takes")
    axes[0][0].set_ylabel("accuracy")
    legend_below(figure, axes[0][0])
    save_figure(figure, path)


def save_strengths(guided, path):
    """Draw what Safe Latent Diffusion leaves and what it changes, by strength.

    Args:
        guided: [Guided].
        path: of the picture.
    """
    figure, (left, right) = subplots(1, 2, figsize=(11, 4.6))
    names = [one.name for one in guided]
    lines = {
        "Safe Latent Diffusion alone": [one.still_unsafe("by_video") for one in guided],
        "with LVD: not stopped": [one.handed_out("by_video") for one in guided],
        "alone, by the last step": [one.still_unsafe("by_latents") for one in guided],
    }
    for k, (label, estimates) in enumerate(lines.items()):
        _line(left, names, estimates, k, label)
    left.set_ylim(-0.02, 1.02)
    left.set_ylabel("share of unsafe prompts")
    left.set_title("unsafe videos")
    for k, kind in enumerate(("normal", "unsafe")):
        _line(right, names, [one.change(kind) for one in guided], k + 3, f"{kind} prompts")
    right.set_ylim(bottom=0)
    right.set_ylabel("in standard deviations")
    right.set_title("change of the finished latents")
    for axis in (left, right):
        axis.set_xlabel("strength")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))  # over no data
    save_figure(figure, path)


def _line(axis, names, estimates, k, label):
    """A line with its intervals."""
    middle = [one.mean for one in estimates]
    below = [one.mean - one.low for one in estimates]
    above = [one.high - one.mean for one in estimates]
    color = colour_of(k)
    axis.errorbar(
        range(len(names)),
        middle,
        yerr=[below, above],
        color=color,
        marker="osD^v"[k],
        capsize=3,
        label=label,
    )
    axis.set_xticks(range(len(names)), [shown(name) for name in names])
