"""What makes a run impossible, found before its first video."""

from lvd.training.decoding import need_hours
from lvd_plan.counts import count
from lvd_plan.disk import disk_of, need_disk
from lvd_plan.networks import clip_shape
from lvd_plan.own_data import check_own_data
from lvd_plan.table import size_text


def check(inputs, model):
    """Check labels, counts, sizes and disk.

    Args:
        inputs: Inputs, whose configs and weights are checked.
        model: "grid", "shared" or "both".

    Returns:
        [line of facts, ...].

    Raises:
        InputError: what the run lacks.
    """
    lines = []
    if inputs.prompts is not None:
        trainings = (inputs.shared, inputs.names)
        lines += check_own_data(inputs.data, *inputs.prompts.values(), trainings)
    counts = count(inputs)
    if model != "grid" and inputs.data.representation == "video":
        clips = counts.steps * sum(counts.trained.values())
        instead = "give --model grid, and train the shared one with representation: latent"
        need_hours(f"--model {model}", clips, clip_shape(inputs), inputs.shared, instead)
    pieces = disk_of(inputs, counts, model)
    peak, free = need_disk(pieces)
    lines.append(f"disk: {size_text(peak)} more at most, {size_text(free)} are free")
    return lines
