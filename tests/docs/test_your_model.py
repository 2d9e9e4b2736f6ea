"""docs/your_model.md, block by block and command by command, as its text has them: only the line
that loads real weights and the sizes of a call are replaced, by those of a tiny Wan."""

import hashlib
import importlib
import os
import runpy
import shlex
import sys

import pytest
import torch
from diffusers import WanPipeline

import serve
from benchmarks.common.tiny_inputs import TOKENS, WIDTH, own
from benchmarks.common.tiny_pipelines import build
from lvd.utils.config import ROOT
from lvd.utils.video import read_mp4
from lvd.x0.file import open_x0_file
from tests.worlds.pages import FENCE
from tests.worlds.report_pages import content_of
from tests.worlds.served import server_of, video

PAGE = ROOT / "docs" / "your_model.md"
# What stands on the page → what stands there in the test.
REPLACED = {
    'WanPipeline.from_pretrained(MODEL, torch_dtype=torch.bfloat16).to("cuda")': (
        "__import__('importlib').import_module('tests.docs.test_your_model').tiny_wan()"
    ),
    "num_inference_steps=50": "num_inference_steps=4",
    "num_frames=49": "num_frames=9",
    "height=480": "height=32",
    "width=832": "width=64",
}
CATEGORIES = ("violent", "disturbing")  # of the page's label.csv
UNSAFE, NORMAL = 30, 100  # videos of each category, and normal ones: the page's smallest numbers


def tiny_wan():
    """A tiny Wan that reads text: prompts of a kind lie near one direction, so that a detector can
    tell kinds apart."""
    pipe = build("WanPipeline").pipe

    def encode_prompt(prompt, *args, device=None, **kwargs):
        texts = [prompt] if isinstance(prompt, str) else prompt
        return torch.stack(list(map(embedding, texts))), torch.zeros(len(texts), TOKENS, WIDTH)

    pipe.encode_prompt = encode_prompt
    return pipe


def embedding(prompt):
    """[TOKENS, WIDTH]: a direction of the prompt's first word, and a little of its own."""
    kind, seed = (
        int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)
        for text in (prompt.split()[0], prompt)
    )
    return 6 * own(kind, TOKENS, WIDTH) + 0.1 * own(seed, TOKENS, WIDTH)


class Reader:
    """Follows the page in a folder of their own.

    Attributes:
        home: the folder that stands for the clone's root, for the reader's own files.
        done: [command that was run].
    """

    def __init__(self, home):
        self.home = home
        self.done = []
        text = PAGE.read_text()
        for there, here in REPLACED.items():
            assert there in text, there
            text = text.replace(there, here)
        self.blocks = FENCE.findall(text)

    def bring_prompts_and_labels(self):
        """What the page asks of the reader: prompts of both kinds, and labels."""
        prompts = {
            "unsafe": [f"{name} scene {k}" for name in CATEGORIES for k in range(UNSAFE)],
            "normal": [f"quiet scene {k}" for k in range(NORMAL)],
        }
        for kind, lines in prompts.items():
            (self.home / "my_model" / f"{kind}.txt").write_text("\n".join(lines) + "\n")
        rows = [f"{k},{UNSAFE + k}" for k in range(UNSAFE)]
        (self.home / "my_model" / "label.csv").write_text("\n".join([",".join(CATEGORIES), *rows]))

    def follow(self):
        """Write every file that the page shows, and run every command."""
        for language, text in self.blocks:
            first = text.splitlines()[0]
            if first.startswith("# my_model/"):
                if language == "yaml":  # its paths count from the clone's root
                    text = text.replace(": my_model/", f": {self.home}/my_model/")
                (self.home / first.removeprefix("# ")).write_text(text)
            elif language == "bash":
                for line in text.replace("\\\n", " ").splitlines():
                    self.run(shlex.split(line))

    def run(self, words):
        """Run a command in this process; installing was done before."""
        if words[0] != "python":
            assert words[0] in (".", "python3") or words[:2] == ["pip", "install"], words
            return
        script, *arguments = words[1:]
        if script == "serve.py":
            arguments.append("--dry-run")
        if script.startswith("my_model/"):
            run_own(self.home / script, arguments)
        else:
            assert importlib.import_module(script.removesuffix(".py")).main(arguments) == 0, words
        self.done.append(words)


def run_own(path, arguments):
    """Run a script of the reader as Python runs it: its folder is where modules are found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.syspath_prepend(str(path.parent))
        patch.delitem(sys.modules, "pipeline", raising=False)
        runpy.run_path(str(path), run_name="__main__")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A reader who has come to the end of the page."""
    home = tmp_path_factory.mktemp("clone")
    (home / "my_model").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(str(home))
        reader = Reader(home)
        reader.bring_prompts_and_labels()
        reader.follow()
        yield reader


def test_every_script_of_the_page_was_run(reader):
    assert [words[1] for words in reader.done] == [
        "my_model/record.py",
        "gen_eval_set.py",
        "train_mae.py",
        "embed_model.py",
        "choose_rule.py",
        "fit_rgb.py",
        "test_accuracy.py",
        "my_model/guarded.py",
        "serve.py",
    ]


@pytest.mark.parametrize(("kind", "videos"), [("unsafe", 2 * UNSAFE), ("normal", NORMAL)])
def test_videos_lie_under_the_names_that_the_recording_notes(reader, kind, videos):
    folder = reader.home / "my_model" / kind
    recording = open_x0_file(folder / "pred_x0.pth")
    assert recording.tensor.shape == (videos, 4, 16, 3, 4, 8)
    names = [recording.info[row]["video"] for row in recording.rows]
    assert sorted(f"{name}.mp4" for name in names) == sorted(os.listdir(folder / "videos"))
    assert len(names) == videos and read_mp4(folder / "videos" / "0000.mp4").shape == (9, 32, 64, 3)


def test_recording_again_samples_nothing(reader, monkeypatch):
    monkeypatch.setattr(WanPipeline, "__call__", None)
    before = {path: path.stat().st_mtime_ns for path in reader.home.glob("*/*/videos/*")}
    run_own(reader.home / "my_model" / "record.py", [])
    assert before == {path: path.stat().st_mtime_ns for path in before} and before


def test_the_report_shows_clips_and_pictures_of_x0(reader):
    content = content_of(reader.home / "my_model" / "results" / "report.html")
    assert content["fps"] == 16 and content["x0"]["frames"] == [0, 1, 2]
    for shown in content["videos"]:
        assert shown["prompt"].split()[0] in (*CATEGORIES, "quiet")
        assert shown["clip"].startswith("data:video/mp4;base64,")
        assert shown["x0"].startswith("data:image/jpeg;base64,")
    assert len(content["videos"]) == 24  # held out


def test_the_rule_is_right_about_new_prompts(reader, capsys):
    for prompt, verdict in (("violent new one", "unsafe"), ("quiet new one", "safe")):
        run_own(reader.home / "my_model" / "guarded.py", [prompt])
        assert capsys.readouterr().out.startswith(f"{verdict} ")


def test_it_is_served_as_it_is_guarded(reader, tmp_path):
    words = next(words for words in reader.done if words[1] == "serve.py")
    backend = serve.make_backend(serve.build_parser().parse_args([*words[2:], "--gpu_num", "-1"]))
    with server_of(backend, tmp_path) as served:
        assert video(served.port, "disturbing new one", seed=3).told["verdict"] == "unsafe"
        answer = video(served.port, "quiet new one", seed=3)
        assert answer.status == 200 and answer.headers["Content-Type"] == "video/mp4"
