"""What the processes of one training must have in common, before anything is computed."""

from lvd.utils.exchange import code_facts, need_same
from lvd.utils.shared_folder import need_shared_folder


def need_one_run(job, args, model, run, launched):
    """Refuse processes of other settings, data or code than process 0, and folders not shared.

    Args:
        job: lvd.training.job.Job.
        args: the flags of train_mae.py.
        model: "grid" or "shared".
        run: of the grid, that knows which detectors are left; else it is not looked at.
        launched: lvd.utils.processes.Processes.

    Raises:
        InputError: what differs or fails; on each machine one process says so. The others end in
            silence.
    """
    if launched.count == 1:
        return
    facts = {
        "--model": model,
        "settings": job.settings.identity(),
        "--group_num": sorted(job.categories),
        "--step_num": job.steps,
        "--folds": args.folds,
        "--names": args.names,
        "eval.pth": job.eval_sha256,
        "clips": job.source.made_by,
        "--init": job.init_sha256,
        "--no-train": not args.train,
        **code_facts(),
    }
    if model == "grid" and args.train:
        facts["device"] = job.device.partition(":")[0]
        facts["detectors left"] = [[group, part.step] for part, group in run.left]
    need_same(launched, facts)
    if args.train:
        need_shared_folder(args.save_dir, launched, "--save_dir")
        if launched.is_main and model == "shared":
            others = f"{launched.count - 1} more"
            print(f"--model shared: one process trains; {others} of this launch only wait")
