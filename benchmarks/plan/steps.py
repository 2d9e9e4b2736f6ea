"""The steps of the checked study: which script, with which flags, and what of the plan it is."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.plan.world import TRAINED_STEP


@dataclass(frozen=True)
class CheckedStep:
    """One run of a script.

    Attributes:
        name: what the report calls it.
        script, flags: the command.
        plan: (representation whose plan, its step), None: it is in no plan.
        share: of the planned work that is done here.
        writes: [files and folders that it makes].
        after: called with the CheckedPlan.
    """

    name: str
    script: str
    flags: list
    plan: tuple | None = None
    share: float = 1.0
    writes: tuple = ()
    after: Callable | None = None


def steps_of(world, gpu):
    """Return [CheckedStep] of a World, on a GPU (-1: the CPU)."""
    return [
        _calibration(world, gpu),
        *_samplings(world, gpu),
        *_clips(world, gpu),
        *_detectors(world, gpu),
    ]


def _calibration(world, gpu):
    """plan.py for the grid; the plan is kept before anything is made."""
    return CheckedStep(
        "plan.py --calibrate, grid on video clips",
        "plan.py",
        [
            *("--config", world.config("video"), "--model", "grid", "--calibrate"),
            *("--prompts", world.prompts("unsafe"), "--gpu_num", gpu),
            *("--normal_prompts", world.prompts("normal")),
            *("--train_config", world.training("base")),
        ],
        after=lambda checked: checked.plan(world, "video", "grid", "base"),
    )


def _samplings(world, gpu):
    return [
        CheckedStep(
            f"inference_magictime.py, {kind}",
            "MagicTime/inference_magictime.py",
            [
                *("--config", world.sampling, "--file_path", world.prompts(kind)),
                *("--save-path", world.folder / kind, "--gpu_num", gpu),
                *(("--seed", "102024") if kind == "normal" else ()),
            ],
            ("latent", f"sample {kind}"),
            writes=(world.folder / kind,),
        )
        for kind in ("unsafe", "normal")
    ]


def _clips(world, gpu):
    latent, video = world.home("latent"), world.home("video")
    config = ("--config", world.config("video"))
    share = 1 / world.steps
    return [
        CheckedStep(
            "build_x0.py, latent",
            "build_x0.py",
            ["--config", world.config("latent"), "--gpu_num", gpu],
            ("any latent", "build_x0"),
            writes=(latent / "train_detector_data",),
        ),
        CheckedStep(
            "build_x0.py, video, one step",
            "build_x0.py",
            [*config, "--steps", TRAINED_STEP, "--gpu_num", gpu],
            ("video", "build_x0"),
            share,
            (video / "train_detector_data",),
        ),
        CheckedStep(
            "gen_eval_set.py",
            "gen_eval_set.py",
            [*config, "--save_path", world.folder / "eval.pth"],
            ("video", "gen_eval_set"),
        ),
        CheckedStep(
            "build_eval_set.py, one step",
            "build_eval_set.py",
            [*config, "--eval_dir", world.folder / "eval.pth", "--save_dir", video],
            ("video", "build_eval_set"),
            share,
        ),
    ]


def _detectors(world, gpu):
    latent, video, split = world.home("latent"), world.home("video"), world.folder / "eval.pth"
    base, small = world.training("base"), world.training(world.small)
    share = 1 / world.steps
    on = ("--eval_dir", split, "--gpu_num", gpu)
    recordings = ("--recordings", world.config("latent"))
    return [
        CheckedStep(
            "train_mae.py, one base on video clips",
            "train_mae.py",
            [
                *("--config", base, "--data_dir", video / "train_detector_data", *on),
                *("--save_dir", video / "detectors"),
            ],
            ("video", "train_mae"),
            share,
            (video / "detectors",),
        ),
        CheckedStep(
            f"train_mae.py, shared {world.small} on latents",
            "train_mae.py",
            [
                *("--config", small, "--model", "shared", *recordings, *on),
                *("--save_dir", latent / "shared"),
            ],
            ("latent", "train shared"),
            writes=(latent / "shared",),
        ),
        CheckedStep(
            "embed_model.py, base on video clips, one step",
            "embed_model.py",
            [
                *("--config", base, "--model_dir", video / "detectors", "--data_dir", video, *on),
                *("--save_dir", video / "results"),
            ],
            ("video", "embed_model"),
            share,
        ),
        CheckedStep(
            f"embed_model.py, shared {world.small} on latents",
            "embed_model.py",
            [
                *("--config", small, "--model_dir", latent / "shared", *recordings, *on),
                *("--save_dir", latent / "results_shared"),
            ],
            ("latent", "embed shared"),
        ),
    ]
