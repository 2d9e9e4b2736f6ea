"""What calls of a protected pipeline share, what each has for itself, and what is refused."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import diffusers
import pytest
import torch

import lvd
from benchmarks.common.tiny_pipelines import build
from lvd import Guard
from lvd.detectors.shared import build_shared, save_shared
from lvd.errors import InputError
from lvd.guard.twin import is_bound, locked_tokenizer, own_tree
from lvd.rules.rule import SAFE
from tests.worlds.guarded_recordings import STEPS, rigged
from tests.worlds.protected_calls import at_once, call


@pytest.fixture
def passing(world):
    return rigged(world, lambda step, n: [[0.0, 0.0]] * n)[0]


@pytest.fixture
def pipe():
    return build("AnimateDiffPipeline").pipe


def any_guard(folder, shape, steps):
    """A guard of an untrained detector that says of nothing what it was trained for."""
    shared = build_shared("nano", shape, "latent", 0, range(steps), ["one"])
    with torch.no_grad():
        shared.net.classifier.weight.normal_(generator=torch.Generator().manual_seed(0))
    shared.thresholds = [[1.0]] * steps
    calibration = {"a": 1.0, "b": 0.0, "method": "platt", "clips": {"unsafe": 5, "normal": 5}}
    shared.calibrations = [[calibration]] * steps
    save_shared(shared, folder / "shared.pth")
    return Guard(folder, 0.6, steps, "cpu", allow_unknown=True)


def test_an_autoencoder_that_changes_itself_decodes_several_videos_at_once(tmp_path):
    """Wan's keeps features of the frames before on itself; two calls meet within its decode."""
    tiny, steps = build("WanPipeline"), 3
    safe = any_guard(tmp_path, tiny.shape, steps).protect(tiny.pipe)

    def video(seed):
        inputs = tiny.inputs([1], (seed,), first=100, steps=steps, output_type="pt")
        output = safe(**inputs)
        assert [result.verdict for result in output.lvd] == [SAFE]
        return output.frames

    alone = [video(seed) for seed in range(3)]
    barrier = threading.Barrier(3, timeout=60)
    conv = tiny.pipe.vae.decoder.conv_in
    handle = conv.register_forward_hook(lambda *_: (barrier.wait(), None)[1])
    try:
        found = at_once(video, [(seed,) for seed in range(3)])
    finally:
        handle.remove()
    for frames, frames_alone in zip(found, alone, strict=True):
        assert torch.equal(frames, frames_alone)


def test_a_module_copied_shares_its_weights_alone():
    shared = torch.nn.Linear(2, 2)
    module = torch.nn.ModuleDict({"a": torch.nn.Sequential(shared), "b": shared, "c": None})
    module.register_buffer("seen", torch.zeros(1))
    module.notes = []
    twin = own_tree(module, {})
    assert twin["b"] is twin["a"][0] is not shared and twin["c"] is None
    assert all(a is b for a, b in zip(twin.parameters(), module.parameters(), strict=True))
    assert twin.seen is module.seen and not is_bound(module)
    twin.seen, twin.new = torch.ones(1), 1
    twin.notes.append(1)
    assert not module.seen.any() and not hasattr(module, "new") and module.notes == []


BOUND = {
    "replaced": lambda pipe: setattr(pipe.unet, "forward", pipe.unet.forward),
    "LoRA": lambda pipe: setattr(pipe.unet, "_hf_peft_config_loaded", True),
    "cast by layer": lambda pipe: pipe.unet.enable_layerwise_casting(
        torch.float32, compute_dtype=torch.float32
    ),
}


@pytest.mark.parametrize("how", BOUND)
def test_calls_that_cannot_share_a_module_come_one_after_another(passing, tiny, pipe, how):
    """Also those of another pipeline of it; each has its own scheduler and autoencoder still."""
    plain = call(passing.protect(pipe), tiny)[0]
    BOUND[how](pipe)
    assert is_bound(pipe.unet) and not is_bound(pipe.vae)
    other = type(pipe)(**pipe.components)
    other.set_progress_bar_config(disable=True)
    before, running = dict(vars(pipe)), []

    def step_of(twin, step, timestep, kwargs):
        running.append(threading.get_ident())
        assert twin.unet is before["unet"] and twin.vae is not before["vae"]
        assert twin.scheduler is not before["scheduler"]
        return {}

    def run(safe):
        return call(safe, tiny, callback_on_step_end=step_of)

    found = at_once(run, [(passing.protect(one),) for one in (pipe, other, pipe, other)])
    assert all(torch.equal(frames, plain) and said == [SAFE] for frames, said in found)
    turns = [running[k : k + STEPS] for k in range(0, len(running), STEPS)]
    assert len(turns) == 4 and all(len(set(turn)) == 1 for turn in turns)
    assert all(vars(pipe)[name] is part for name, part in before.items() if name in pipe.components)


def test_compiled_modules_are_bound(pipe):
    assert is_bound(torch.compile(pipe.vae, backend="eager")) and not is_bound(pipe.unet)
    pipe.unet.compile(backend="eager")
    assert is_bound(pipe.unet)


def test_a_cache_that_asks_the_pipeline_for_its_timestep(tmp_path):
    """Pyramid attention broadcast: its callback looks at the pipeline that it was made for."""
    tiny, steps = build("CogVideoXPipeline"), 3
    guard, pipe, asked = any_guard(tmp_path, tiny.shape, steps), tiny.pipe, []

    def now():
        asked.append(pipe.current_timestep)
        return pipe.current_timestep

    pipe.transformer.enable_cache(
        diffusers.PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, current_timestep_callback=now
        )
    )

    def video(seed, pipe):
        return pipe(**tiny.inputs([1], (seed,), first=100, steps=steps)).frames

    alone, safe = [video(seed, pipe) for seed in range(3)], guard.protect(pipe)
    found = at_once(video, [(seed, safe) for seed in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(alone, found, strict=True))
    assert asked and None not in asked


def test_one_tokenizes_at_a_time():
    """A fast tokenizer sets padding and truncation on itself for each text."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {word: k for k, word in enumerate(["[PAD]", "[UNK]", *map(str, range(1000))])}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="[PAD]")
    text = " ".join(map(str, range(1000)))

    def lengths(longest):
        own = locked_tokenizer(plain)
        assert isinstance(own, type(plain)) and own.pad_token == "[PAD]"
        given = dict(padding="max_length", truncation=True, max_length=longest)
        return {len(row) for _ in range(3) for row in own([text] * 4, **given).input_ids}

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lengths, range(1, 17))) == [{n} for n in range(1, 17)]


def test_a_thread_that_begins_while_detectors_compute_keeps_its_threads():
    """Else its videos would be computed by one thread ever after."""
    from lvd.utils.processes import one_thread, settle_threads

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found, narrow, done = [], threading.Event(), threading.Event()

        def detect():
            torch.set_num_threads(2)
            with one_thread():
                narrow.set()
                done.wait(0.2)

        def sample():
            settle_threads()
            found.append(torch.get_num_threads())

        detecting = threading.Thread(target=detect)
        detecting.start()
        narrow.wait()
        sampling = threading.Thread(target=sample)
        sampling.start()
        for thread in (detecting, sampling):
            thread.join()
        assert found == [2]
    finally:
        torch.set_num_threads(before)


# ---- what is refused


class Own:
    """A pipeline that is not diffusers'."""

    def __init__(self, tiny, answer):
        self.scheduler, self.answer = tiny.pipe.scheduler, answer

    def __call__(self):
        return self.answer(self)


class Streaming(Own):
    def __call__(self):
        yield self.answer(self)


def sampled(pipe):
    pipe.scheduler.set_timesteps(STEPS)
    x = torch.zeros(1, 4, 3, 4, 8)
    for timestep in pipe.scheduler.timesteps:
        x = pipe.scheduler.step(x, timestep, x).prev_sample
    return x


def test_other_outputs(passing, tiny):
    """What can have no attribute comes out as it is; its results go to on_result."""
    told = []
    for answer in (sampled, lambda pipe: list(sampled(pipe)), lambda pipe: {"x": sampled(pipe)}):
        own = passing.protect(Own(tiny, answer), layout="BCFHW", on_result=told.append)
        output = own()
        assert type(output) is type(answer(Own(tiny, answer)))
    assert [[r.verdict for r in results] for results in told] == [[SAFE]] * 3
    with pytest.raises(InputError, match="took no step"):
        passing.protect(Streaming(tiny, sampled), layout="BCFHW")()
    with pytest.raises(InputError, match="took no step"):
        passing.protect(Own(tiny, lambda pipe: 1), layout="BCFHW")()


class WithProperty(Own):
    scheduler = property(lambda self: self.kept, lambda self, value: setattr(self, "kept", value))


def test_what_cannot_be_protected(passing, tiny, pipe):
    safe = passing.protect(pipe)
    wrong = {
        "it is protected already": lambda: passing.protect(safe),
        "it is a class": lambda: passing.protect(type(pipe)),
        "it has no scheduler": lambda: passing.protect(sampled),
        "it cannot be called": lambda: passing.protect(SimpleNamespace(scheduler=pipe.scheduler)),
        "its scheduler is a property": lambda: passing.protect(
            WithProperty(tiny, sampled), layout="BCFHW"
        ),
        "on_unsafe='warn'": lambda: passing.protect(pipe, "warn"),
        "cannot be interrupted": lambda: passing.protect(
            Own(tiny, sampled), "interrupt", layout="BCFHW"
        ),
        "not a pipeline whose latents are known": lambda: passing.protect(Own(tiny, sampled)),
        "on_result=3": lambda: passing.protect(pipe, on_result=3),
        "cannot be pickled": lambda: pickle.dumps(safe),
        "no class can be derived": lambda: type("Mine", (type(safe),), {}),
    }
    for words, action in wrong.items():
        with pytest.raises(InputError, match=words) as error:
            action()
        assert "\n" not in str(error.value)


def test_in_a_block_that_watches_the_pipeline(passing, tiny, pipe, tmp_path):
    safe = passing.protect(pipe)
    for block in (
        lambda: lvd.X0Recorder(pipe.scheduler),
        lambda: lvd.record(pipe, tmp_path / "x0.pth", 1),
    ):
        with pytest.raises(InputError, match="is watched already"), block():
            passing.protect(pipe)
        with pytest.raises(InputError, match="is watched already"), block():
            call(safe, tiny)
    with pytest.raises(InputError, match="is watched already"), passing.watch(pipe):
        call(safe, tiny)
    with pytest.raises(InputError, match="called while"), passing.watch(pipe):
        type(pipe)(**pipe.components)(**tiny.inputs([1], steps=2))  # a bare one still is
    assert call(safe, tiny)[1] == [SAFE]
    other = build("AnimateDiffPipeline", seed=1)
    with passing.watch(other.pipe):  # of another model: the two do not disturb each other
        assert call(safe, tiny)[1] == [SAFE]
        call_watched = other.pipe(**other.inputs([-1], (50,), steps=STEPS))
    assert not hasattr(call_watched, "lvd")
