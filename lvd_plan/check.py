"""What makes a run impossible, found before its first video."""

from lvd.utils.disk import GIB
from lvd_plan.counts import count
from lvd_plan.disk import disk_of, need_disk
from lvd_plan.own_data import check_own_data


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
    pieces = disk_of(inputs, counts, model)
    peak, free = need_disk(pieces)
    lines.append(f"disk: {peak / GIB:.1f} GiB more at most, {free / GIB:.1f} GiB are free")
    return lines
