"""A folder that gets more prompts after those that it has.

A run with more prompts than the folder was made with adds their rows to the recordings. Nothing is
sampled again. What makes the first videos must be the same as before: their prompts, their seeds,
and all settings.
"""

from lvd.errors import InputError, shorten
from lvd.utils.config import claim_output, first_difference
from lvd.utils.files import load_yaml
from lvd.x0.growing import grow_x0_file
from lvd.x0.sidecar import (
    load_sidecar,
    need_same_recording,
    new_sidecar,
    recorded_rows,
    sidecar_path,
    video_name,
)
from MagicTime.utils.output_folder import MAY_DIFFER
from MagicTime.utils.prompts import digest
from MagicTime.utils.verdicts import Verdicts

OF_EACH = ("seed", "n_prompt")  # keys whose value may be a list with one entry for each prompt


def identity_of_first(plan, count):
    """Return the identity that a run with the plan's first `count` prompts has.

    Args:
        plan: MagicTime.utils.sampling_plan.Plan.
        count: how many prompts.
    """
    identity = dict(plan.identity)
    for key in OF_EACH:
        if isinstance(identity[key], list) and len(identity[key]) == len(plan.prompts):
            identity[key] = identity[key][:count]
    identity["prompts"] = count
    identity["prompts_sha256"] = digest(plan.prompts[:count])
    return identity


def need_same_beginning(plan):
    """Check that the folder and its recordings were begun by this run, or by one of the first of
    its prompts.

    Args:
        plan: MagicTime.utils.sampling_plan.Plan.

    Returns:
        How many prompts the folder was made with, or None if it is a new one.

    Raises:
        InputError: another config, another prompt in one of the rows, or fewer prompts.
    """
    for path in plan.recordings.values():
        if path.exists() and sidecar_path(path).exists():
            _need_prompts(plan, path, load_sidecar(path)["shape"][0], recorded_rows(path))
    if not plan.folder.config.exists():
        return None
    if plan.guarding:
        _need_prompts(plan, plan.folder.path, 0, Verdicts(plan.folder.path).read())
    before = load_yaml(plan.folder.config)
    count = before.get("prompts") if isinstance(before, dict) else None
    if type(count) is not int or not 1 <= count < len(plan.prompts):
        if type(count) is int:
            _need_prompts(plan, plan.folder.config, count, {})
        plan.folder.claim(plan.identity)  # refuses the folder of another config
        return len(plan.prompts)
    now = identity_of_first(plan, count)
    difference = first_difference(before, now, MAY_DIFFER)
    if difference and difference[0] == "prompts_sha256":
        raise InputError(
            f"{plan.folder.config}: this folder was made with {count} prompts, and the first "
            f"{count} of these {len(plan.prompts)} are others; new ones come after them, or use "
            "another folder"
        )
    claim_output(plan.folder.path, now, ignore=MAY_DIFFER)
    return count


def grow_recordings(plan, meta):
    """Add the rows of the new prompts to the recordings that are there.

    Args:
        plan: MagicTime.utils.sampling_plan.Plan, of the process that keeps other runs out.
        meta: function of a run's identity that gives what its recordings say of it.
    """
    for path in plan.recordings.values():
        if not (path.exists() and sidecar_path(path).exists()):
            continue
        shape = load_sidecar(path)["shape"]
        if shape[0] >= len(plan.prompts):
            continue
        before = meta(identity_of_first(plan, shape[0]))
        planned = (shape[0], plan.settings.steps, *plan.latent_shape)
        need_same_recording(path, new_sidecar(planned, plan.x0_dtype, before))
        grow_x0_file(path, len(plan.prompts), meta(plan.identity))


def _need_prompts(plan, where, count, rows):
    """InputError unless the plan has as many prompts, and those of the rows that are there.

    Args:
        plan: MagicTime.utils.sampling_plan.Plan.
        where: the path that says so.
        count: how many prompts there were.
        rows: {row: {"prompt", "video", ...}} of those that were sampled.
    """
    if count > len(plan.prompts):
        raise InputError(
            f"{where}: made with {count} prompts, now there are {len(plan.prompts)}; give all of "
            f"them, with --limit {len(plan.prompts)} to sample only the first ones, or use another "
            "folder"
        )
    for row, told in sorted(rows.items()):
        if row >= len(plan.prompts):
            continue
        prompt = plan.prompts[row]
        named = video_name(row, told)
        for what, there, now in (
            ("prompt", told.get("prompt"), prompt.text),
            ("video name", named, prompt.name),
        ):
            if there is not None and there != now:
                raise InputError(
                    f"{where}: row {row} was recorded with {what} {shorten(there)}, now it is "
                    f"{shorten(now)}; leave the prompts as they are and add new ones after them, "
                    "or use another folder"
                )
