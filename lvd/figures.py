"""Figures of a report: the (lambda, eta) grid as heat maps, and what each step can tell."""

import numpy as np

from lvd.files import atomic

NAMES = {"accuracy": "accuracy", "tpr": "true positive rate (unsafe found)", "tnr": "true negative rate (normal passed)"}


def pyplot():
    """matplotlib.pyplot without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save_grid_figure(rows, path, title):
    """Heat maps of accuracy, TPR and TNR over eta (across) and lambda (up)."""
    plt = pyplot()
    lambdas, etas = sorted({r["lambda"] for r in rows}), sorted({r["eta"] for r in rows})
    figure, axes = plt.subplots(3, 1, figsize=(max(6, 0.17 * len(etas) + 2), 9), constrained_layout=True)
    for axis, (key, name) in zip(axes, NAMES.items()):
        found = {(r["lambda"], r["eta"]): r[key] for r in rows}
        image = axis.imshow([[found[lam, eta] for eta in etas] for lam in lambdas], origin="lower", aspect="auto",
                            cmap="viridis", vmin=0.5 if key == "accuracy" else 0, vmax=1)
        ticks = sorted({0, *range(4, len(etas), 5), len(etas) - 1} if len(etas) > 10 else range(len(etas)))
        axis.set_xticks(ticks, [etas[k] for k in ticks])
        axis.set_yticks(range(len(lambdas)), lambdas)
        axis.set(ylabel="λ", title=name)
        figure.colorbar(image, ax=axis)
    axes[-1].set_xlabel("η: steps that vote")
    figure.suptitle(title)
    save(figure, path)


def save_step_figure(rows, path, title):
    """Curves over the denoising step: accuracy, TPR and TNR of the OR vote; AUROC of scores where known."""
    plt = pyplot()
    aurocs = [key for key in rows[0] if key.startswith("auroc")]
    panels = 2 if aurocs else 1
    figure, axes = plt.subplots(1, panels, figsize=(5.5 * panels, 4.2), squeeze=False, constrained_layout=True)
    steps = [row["step"] for row in rows]
    for key, name in NAMES.items():
        axes[0, 0].plot(steps, [row[key] for row in rows], label=name, linewidth=2 if key == "accuracy" else 1.2)
    axes[0, 0].set(title="vote of one step (any category)", xlabel="denoising step", ylim=(0, 1.02))
    axes[0, 0].legend(fontsize=8)
    for key in aurocs:
        thick = key == "auroc any"
        axes[0, 1].plot(steps, [row[key] for row in rows], label=key.removeprefix("auroc "), linewidth=2 if thick else 1.2,
                        color="black" if thick else None)
    if aurocs:
        low = np.floor(10 * min(row[key] for row in rows for key in aurocs)) / 10
        axes[0, 1].set(title="AUROC of the scores, against normal videos", xlabel="denoising step", ylim=(low, 1.02))
        axes[0, 1].legend(fontsize=8)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    save(figure, path)


def save_curve_figure(rows, path, title):
    """Training curve over epochs: losses, and on an axis of its own the AUROC where it is known."""
    figure, axis = pyplot().subplots(figsize=(6, 4), constrained_layout=True)
    epochs = [row["epoch"] for row in rows]
    for key, name in (("train_loss", "training loss"), ("val_loss", "validation loss")):
        if key in rows[0]:
            axis.plot(epochs, [row[key] for row in rows], marker=".", label=name)
    axis.set(title=title, xlabel="epoch", ylabel="loss")
    axis.grid(alpha=0.3)
    handles = list(axis.get_lines())
    if "val_auroc" in rows[0]:
        other = axis.twinx()
        other.set_ylabel("validation AUROC, mean over steps and categories")
        handles += other.plot(epochs, [row["val_auroc"] for row in rows], marker=".", color="C2", label="validation AUROC")
    axis.legend(handles=handles, fontsize=8)
    save(figure, path)


def save(figure, path):
    """Write a figure atomically, the same bytes for the same figure, and close it."""
    with atomic(path) as partial:
        figure.savefig(partial, dpi=110, metadata={"Software": None})
    pyplot().close(figure)
