"""What the processes of one sampling must have in common, before the weights are loaded."""

import torch

from lvd.utils.exchange import code_facts, need_same
from lvd.utils.shared_folder import need_shared_folder
from MagicTime.utils.config import RECORDINGS

PATHS = ("save_path", "file_path", *RECORDINGS)  # other words may name the same place


def need_same_run(run, limit):
    """Refuse processes of another config, other weights or other code than process 0.

    Each takes its share of the batches, so each must plan the same ones.

    Args:
        run: MagicTime.utils.run.Run, of all of its processes.
        limit: of the prompts, or None.

    Raises:
        InputError: what differs; on each machine one process says so. The others end in silence.
    """
    if run.processes.count == 1:
        return
    facts = {key: value for key, value in run.plan.identity.items() if key not in PATHS}
    facts["prompts"] = facts.pop("prompts_sha256")
    facts["seeds"] = run.plan.seeds
    facts["recorded"] = sorted(run.plan.recordings)
    facts["--limit"] = limit
    facts |= code_facts()
    if run.plan.device.type == "cpu":
        facts["threads (OMP_NUM_THREADS)"] = torch.get_num_threads()
    if run.plan.guarding:
        facts["--guard-preview"] = run.plan.guarding.rgb is not None
    need_same(run.processes, facts)


def need_shared_folders(run):
    """Refuse folders that the processes of a run cannot fill together.

    Args:
        run: MagicTime.utils.run.Run, of all of its processes.

    Raises:
        InputError: what fails; on each machine one process says so. The others end in silence.
    """
    plan = run.plan
    need_shared_folder(plan.folder.path, run.processes, "--save-path")
    for key, path in plan.recordings.items():
        if path.parent.absolute() != plan.folder.path.absolute():
            need_shared_folder(path.parent, run.processes, key)
