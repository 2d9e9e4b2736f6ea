"""A diffusers pipeline behind the server, guarded by Guard.protect."""

import sys
import types

import pytest
import torch

import serve
from lvd import Guard, InputError, UnsafeVideoError
from lvd_server.pipelines import PipelineBackend, find_function
from tests.worlds import magictime_world
from tests.worlds.refusals import refused
from tests.worlds.served import lines_of, need_refusal, send, server_of, until, video

SIZE = dict(num_inference_steps=4, num_frames=4, height=32, width=32, guidance_scale=3.0)
NAME = "pipelines_of_the_test"


def animatediff(folder):
    """The random tiny MagicTime as the diffusers pipeline that it is."""
    from diffusers import AnimateDiffPipeline

    model = magictime_world.load(folder)
    parts = {name: getattr(model, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    return AnimateDiffPipeline(**parts, motion_adapter=None, scheduler=model.scheduler)


@pytest.fixture(scope="module")
def pipe(world):
    return animatediff(world[0])


@pytest.fixture
def module(pipe, monkeypatch):
    """A module that a user has written, to be named by --pipeline."""
    made = types.ModuleType(NAME)
    made.build = lambda: pipe
    made.broken = lambda: 1 / 0
    made.other = lambda: "no pipeline"
    made.number = 5
    monkeypatch.setitem(sys.modules, NAME, made)
    return made


def verdict_alone(home, pipe, prompt, seed):
    """What the guard says of one call outside of any server."""
    guard = Guard.from_file(home.guard, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    try:
        with guard.watch(pipe) as watch:
            pipe(prompt, negative_prompt="", generator=generator, output_type="latent", **SIZE)
    except UnsafeVideoError as error:
        return error.results[0].verdict
    return watch.results[0].verdict


def test_served_as_it_is_guarded(home, pipe, module, tmp_path):
    alone = [verdict_alone(home, pipe, *asked) for asked in home.asked]
    assert set(alone) == {"safe", "unsafe"}
    cpu = torch.device("cpu")
    backend = PipelineBackend(f"{NAME}:build", str(home.guard), cpu, given=SIZE)
    with server_of(backend, tmp_path, workers=2) as found:
        for (prompt, seed), verdict in zip(home.asked, alone, strict=True):
            answer = video(found.port, prompt, negative_prompt="", seed=seed)
            assert answer.status == {"safe": 200, "unsafe": 400}[verdict]
            assert answer.headers["X-LVD-Verdict"] == verdict
            # Its steps are seen, so that a call that nobody waits for can be ended.
            assert int(answer.headers["X-LVD-Steps-Run"]) > 0
            assert float(answer.headers["X-LVD-Guard-Seconds"]) > 0
        need_refusal(video(found.port, "a wave", num_inference_steps=10), "noise level")
        need_refusal(video(found.port, "a wave", height=33), "height")
        with send(found.port, "a wave"):
            until(lambda: found.service.desk.running == 1)
        until(lambda: len(lines_of(found.log)) == len(alone) + 3)
        last = lines_of(found.log)[-1]
        assert last["status"] in (200, 400, 499)  # it may have been too fast for the client


WRONG = {
    "no_colon": "module:function",
    f"{NAME}:": "module:function",
    "../up:function": "module:function",
    "no_such_module_here:build": "cannot be imported",
    f"{NAME}:number": "no function number",
    f"{NAME}:absent": "no function absent",
}


@pytest.mark.parametrize("name, words", WRONG.items())
def test_functions_that_are_none_are_refused(module, home, capsys, name, words):
    flags = ["--pipeline", name, "--guard", str(home.guard), "--gpu_num", "-1", "--dry-run"]
    refused(serve.main(flags), capsys, "--pipeline", words)


@pytest.mark.parametrize(
    "name, words", [("broken", "ZeroDivisionError"), ("other", "a diffusers pipeline")]
)
def test_functions_that_give_no_pipeline_are_refused(module, home, name, words):
    backend = PipelineBackend(f"{NAME}:{name}", str(home.guard), torch.device("cpu"))
    with pytest.raises(InputError, match=words):
        backend.load()


def test_pipelines_that_need_more_than_a_prompt_are_refused(module, home):
    from diffusers import StableVideoDiffusionPipeline

    module.build = lambda: object.__new__(StableVideoDiffusionPipeline)
    backend = PipelineBackend(f"{NAME}:build", str(home.guard), torch.device("cpu"))
    with pytest.raises(InputError, match="takes no prompt"):
        backend.load()


def test_settings_of_a_pipeline_are_checked(module, home):
    assert find_function(f"{NAME}:build") is module.build
    for given, words in (({"fps": 8}, "num_frames"), ({"height": 3}, "height")):
        with pytest.raises(InputError, match=words):
            PipelineBackend(f"{NAME}:build", home.guard, torch.device("cpu"), given=given)
