"""Which pipeline classes of diffusers sample video, read from its source, so that no table forgets
one."""

import ast
from pathlib import Path

import diffusers

STEPS = {"num_inference_steps", "sigmas", "timesteps"}  # arguments of a call that samples
VIDEO = {"frames", "video"}  # parts of an output that are videos


def video_classes():
    """Return the names of all classes of diffusers.pipelines whose call samples a video, sorted.

    Such a call takes the number of its steps (or the steps themselves), and returns an output of
    frames or of a video, or takes a `video_length`. Those that only enlarge or decode latents take
    no steps. Nothing is imported: some classes need libraries that are not installed.
    """
    root = Path(diffusers.__file__).parent / "pipelines"
    found = set()
    for path in root.glob("**/pipeline_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Pipeline"):
                call = next((f for f in node.body if getattr(f, "name", "") == "__call__"), None)
                if call and _samples_video(call):
                    found.add(node.name)
    return sorted(found)


def _samples_video(call):
    arguments = {a.arg for a in [*call.args.args, *call.args.kwonlyargs]}
    parts = set()
    for node in ast.walk(call):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Output"):
            parts |= {keyword.arg for keyword in node.keywords}
    return bool(arguments & STEPS) and bool(parts & VIDEO or "video_length" in arguments)
