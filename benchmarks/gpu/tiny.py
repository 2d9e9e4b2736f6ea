"""The project's own scripts on the GPU, one after the other, on the weights of the tiny world."""

import contextlib
import io
import json
from pathlib import Path
from unittest import mock

import torch

from lvd.errors import InputError
from lvd.utils.files import read_text, save_yaml
from lvd.utils.video import has_av
from lvd.x0.file import open_x0_file
from MagicTime.utils.config import find

CONFIG = "sample_configs/Tiny.yaml"
PROMPTS = "ckpts/Tiny/prompts"
VIDEOS, SMOKE_VIDEOS = 48, 8  # of each kind
GUARDED, SMOKE_GUARDED = 8, 2  # of them, sampled with a guard
EXACT = "x0_dtype=float32"  # of what is compared
SMOKE_LABELS = "one,two\n0,4\n1,5\n2,6\n3,7\n"
COMPARED, SMOKE_COMPARED = 4, 1  # videos that the CPU samples too


def part(bench):
    world = World(bench)
    for dtype in ("float32", "float16", "bfloat16"):
        if not (bench.sizes.is_smoke and dtype == "float16"):
            bench.measure(f"x0, {dtype}, against the CPU's", lambda: world.against_cpu(dtype))  # noqa: B023
    bench.measure("x0, float32 without TF32 convolutions, against the CPU's", world.without_tf32)
    bench.measure("inference_magictime.py, unsafe and normal", world.record)
    bench.measure("gen_eval_set.py, build_x0.py, build_eval_set.py", world.build)
    bench.measure("train_mae.py", world.train)
    bench.measure("embed_model.py, test_accuracy.py", world.evaluate)
    bench.measure("train_mae.py --model shared", world.train_shared)
    bench.measure("--guard of the trained grid", lambda: world.guarded(world.detectors))
    if not bench.sizes.is_smoke:  # a part of the whole run alone
        bench.measure("--guard of the shipped detectors, float32", lambda: world.guarded("float32"))
        bench.measure("--guard of the shipped detectors, float16", lambda: world.guarded("float16"))


class World:
    """A folder with recordings, a dataset, detectors and votes."""

    def __init__(self, bench):
        self.bench = bench
        self.folder = bench.folder / "tiny"
        self.gpu = 0 if bench.on_gpu else -1
        self.videos = SMOKE_VIDEOS if bench.sizes.is_smoke else VIDEOS
        self.guarded_videos = SMOKE_GUARDED if bench.sizes.is_smoke else GUARDED
        self.compared = SMOKE_COMPARED if bench.sizes.is_smoke else COMPARED
        self.steps = bench.sizes.steps
        self.detectors = self.folder / "detectors"
        self.folder.mkdir()
        self._write_prompts()
        self._on_cpu = None  # x0 of the first videos, sampled on the CPU from the GPU's noise

    def against_cpu(self, dtype):
        """How far x0 is from what the CPU makes of the same noise in float32."""
        if self._on_cpu is None:
            self._on_cpu = self._cpu_x0()
        out = self.folder / f"gpu {dtype}{torch.backends.cudnn.allow_tf32}"
        self._sample(out, "unsafe", self.gpu, self.compared, f"dtype={dtype}", EXACT)
        x0 = open_x0_file(out / "pred_x0.pth").tensor[: self.compared].float()
        off = (x0 - self._on_cpu).abs().amax((0, 2, 3, 4, 5)) / self._on_cpu.std()
        return {
            "finite": bool(torch.isfinite(x0).all()),
            "off by, in std, at most": float(off.max()),
            "at the first step": float(off[0]),
            "at the last": float(off[-1]),
        }

    def without_tf32(self):
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            return self.against_cpu("float32")
        finally:
            torch.backends.cudnn.allow_tf32 = before

    def _cpu_x0(self):
        from MagicTime.utils import pipeline

        device, drawn = self.bench.device, pipeline.initial_noise

        def noise_of_device(model, seeds, *size):
            with mock.patch.object(type(model), "device", device):
                return drawn(model, seeds, *size).cpu()

        with mock.patch.object(pipeline, "initial_noise", noise_of_device):
            out = self.folder / "cpu"
            self._sample(out, "unsafe", -1, self.compared, "dtype=float32", EXACT)
        return open_x0_file(out / "pred_x0.pth").tensor[: self.compared].float()

    def record(self):
        for kind in ("unsafe", "normal"):
            self._sample(self.folder / kind, kind, self.gpu, self.videos, "dtype=float32")
        return {"videos": 2 * self.videos, "steps": self.steps}

    def build(self):
        import build_eval_set
        import build_x0
        import gen_eval_set

        config = self.folder / "build_x0.yaml"
        save_yaml(
            {
                "pred_x0": str(self.folder / "unsafe" / "pred_x0.pth"),
                "normal_pred_x0": str(self.folder / "normal" / "pred_x0.pth"),
                "label_file_dir": str(self.folder / "label.csv"),
                "out_dir": str(self.folder / "data"),
            },
            config,
        )
        evaluation = self.folder / "eval.pth"
        run(gen_eval_set, "--config", config, "--save_path", evaluation)
        run(build_x0, "--config", config, "--gpu_num", self.gpu)
        run(build_eval_set, "--config", config, "--eval_dir", evaluation, "--save_dir", self.folder)
        return {}

    def train(self):
        import train_mae

        recipe = "--epoch", 1 if self.bench.sizes.is_smoke else 20, "--workers", 1
        run(train_mae, *self._data(), "--save_dir", self.detectors, "--size", "nano", *recipe)
        return {"detectors": len(list(self.detectors.glob("*/*.pth")))}

    def train_shared(self):
        import train_mae

        epochs = 1 if self.bench.sizes.is_smoke else 4
        recipe = "--epoch", epochs, "--model", "shared", "--precision", "bf16"
        where = self.folder / "shared"
        run(train_mae, *self._data(), "--save_dir", where, "--size", "nano", *recipe)
        return {"written": (where / "shared.pth").exists()}

    def evaluate(self):
        import embed_model
        import test_accuracy

        results = self.folder / "results"
        flags = ["--data_dir", self.folder, "--save_dir", results, "--gpu_num", self.gpu]
        flags += ["--eval_dir", self.folder / "eval.pth"]
        run(embed_model, "--model_dir", self.detectors, *flags)
        eta = min(5, self.steps)
        said = run(test_accuracy, "--data_dir", results, "--lambda", "0.6", "--eta", eta)
        return {"it said": next(line for line in said.splitlines() if "ccuracy" in line).strip()}

    def guarded(self, which):
        """How many unsafe and normal prompts a guard stops, and after how many steps."""
        shipped = which in ("float32", "float16")
        dtype = which if shipped else "float32"
        flags = ["--guard", "ckpts/Tiny/guard" if shipped else which]
        if not shipped:
            flags += ["--lambda", "0.6", "--eta", min(5, self.steps - 1)]
        found = {}
        for kind in ("unsafe", "normal"):
            out = self.folder / f"guarded {'shipped' if shipped else 'own'} {dtype} {kind}"
            self._sample(out, kind, self.gpu, self.guarded_videos, f"dtype={dtype}", *flags)
            lines = map(json.loads, read_text(out / "verdicts.jsonl").splitlines())
            lines = {line["row"]: line for line in lines}.values()
            found[f"{kind} stopped"] = sum(line["stopped"] for line in lines)
            found[f"steps of {kind}"] = [line["steps_run"] for line in lines]
            found[f"{kind} unchecked"] = sum(line["verdict"] == "unchecked" for line in lines)
            videos = len(list((out / "videos").glob("*.*")))
            found[f"{kind} videos written are those passed"] = (
                videos == self.guarded_videos - found[f"{kind} stopped"]
            )
        return found

    def _sample(self, out, kind, gpu, limit, *words):
        from MagicTime import inference_magictime

        prompts = self.folder / f"{kind}.txt"
        flags = ["--config", CONFIG, "--file_path", prompts, "--save-path", out, "--gpu_num", gpu]
        given = [word for word in words if "=" not in str(word)]
        words = [word for word in words if "=" in str(word)]
        words += [f"steps={self.steps}", f"format={'mp4' if has_av() else 'gif'}"]
        run(inference_magictime, *flags, "--limit", limit, *given, *words)

    def _data(self):
        return [
            "--data_dir",
            self.folder / "data",
            "--eval_dir",
            self.folder / "eval.pth",
            "--gpu_num",
            self.gpu,
        ]

    def _write_prompts(self):
        """The first prompts, and the labels of those."""
        for kind in ("unsafe", "normal"):
            lines = read_text(find(f"{PROMPTS}/{kind}.txt")).splitlines()[: self.videos]
            (self.folder / f"{kind}.txt").write_text("\n".join(lines) + "\n")
        if self.bench.sizes.is_smoke:
            (self.folder / "label.csv").write_text(SMOKE_LABELS)
            return
        names, *rows = read_text(find(f"{PROMPTS}/label.csv")).splitlines()
        columns = zip(*(row.split(",") for row in rows), strict=True)
        kept = [[n for n in column if n and int(n) < self.videos] for column in columns]
        longest = max(map(len, kept))
        lines = [",".join(col[k] if k < len(col) else "" for col in kept) for k in range(longest)]
        (self.folder / "label.csv").write_text("\n".join([names, *lines]) + "\n")


def run(script, *flags):
    """Run a script in this process, silently. Returns what it said; InputError where it failed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = script.main(list(map(str, flags)))
    if status:
        name = Path(script.__file__).name
        raise InputError(f"{name}: exit status {status}: {said.getvalue()[-600:]}")
    return said.getvalue()
