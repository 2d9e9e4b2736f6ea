"""What is said of a run: before it, as its plan, and after it, as its summary."""

from lvd.utils.disk import GIB
from MagicTime.utils.schedulers import DDIM
from MagicTime.utils.verdicts import PREVIEWS, VERDICTS, tell


def planned_facts(plan, processes, limit=None):
    """Return {fact: text} of what a run will write.

    Args:
        plan: MagicTime.utils.sampling_plan.Plan.
        processes: lvd.utils.processes.Processes.
        limit: only the first `limit` prompts are sampled; None: all.
    """
    settings = plan.settings
    count = len(plan.prompts)
    now = min(limit or count, count)
    plan.need_space()
    folder = plan.folder.path
    paths = [p.name if p.parent == folder else str(p) for p in plan.recordings.values()]
    names = " and ".join(paths) or "none"
    shape = [len(plan.prompts), settings.steps, *plan.latent_shape]
    size = f"{plan.recorded_bytes / GIB:.2f} GiB in all"
    of_all = " and for all prompts" if plan.recordings and now < count else ""
    free = f"{plan.folder.free_bytes() / GIB:.1f} GiB free"
    pixels = f"{settings.W} x {settings.H} pixels"
    by = "" if settings.scheduler == DDIM else f" of {settings.scheduler}"
    facts = {
        "prompts": count if now == count else f"{now} now, the first of {count} (--limit {limit})",
        "videos": f"{settings.L} frames of {pixels}, {settings.steps} steps{by}",
        "x0": recorded_fact(settings),
        "recording": f"{names} {shape}, {size}{of_all} ({free})",
        "batch_size": settings.batch_size,
        "processes": processes.count,
        "folder": plan.folder.path,
    }
    if plan.guarding:
        facts["guard"] = plan.guarding.describe()
    return facts


def sampled_facts(run, made):
    """Return {fact: text} of a run that ended, which made `made` videos."""
    return {
        "videos": f"{made} new, {run.count_done()} of {len(run.plan.prompts)} prompts done",
        **guard_facts(run),
        "processes": run.processes.count,
        "device": run.plan.device,
        "x0": recorded_fact(run.plan.settings),
    }


def guard_facts(run):
    """Return {fact: text} of what the guard did to all videos that are done; {} without one."""
    return tell(list(run.verdicts.read().values())) if run.plan.guarding else {}


def recorded_fact(settings):
    """Return what is recorded, in words."""
    if not settings.save_predx_0:
        return "not recorded"
    return f"{settings.x0_mode}, {settings.steps} steps, {settings.x0_dtype}"


def written_paths(plan):
    """Return the paths that a run has written."""
    folder = plan.folder
    paths = []
    if folder.videos.is_dir() and any(folder.videos.iterdir()):  # the guard may let none pass
        paths.append(folder.videos)
    paths += plan.recordings.values()
    if plan.guarding:
        told = (folder.path / VERDICTS, folder.path / PREVIEWS)
        paths += [path for path in told if path.exists()]
    return [*paths, folder.config]
