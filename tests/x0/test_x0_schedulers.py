"""x0 of every scheduler against closed forms: with a model that knows the true x0, the recorder
returns it at every step."""

import copy
import inspect
import math
from functools import partial

import diffusers
import pytest
import torch

from lvd import X0Recorder, predicted_x0, watch_steps
from lvd.errors import InputError
from lvd.x0.schedulers import SCHEDULERS, describe_scheduler

X0 = 0.3 * torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
STEPS = (1, 2, 5, 20, 50)
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

# Scheduler, settings, and how x_t = alpha x0 + sigma noise follows from a position in its tables,
# written apart from lvd.x0.watch.
BY_TIMESTEP, BY_SIGMA, SCALED, FLOW, INVERTED = (
    "abar",
    "sigma",
    "scaled sigma",
    "flow",
    "inverted flow",
)
ALL, DIFFUSION = ("epsilon", "v_prediction", "sample"), ("epsilon", "v_prediction")
CASES = [
    ("DDIMScheduler", BY_TIMESTEP, ALL, dict(clip_sample=False, **BETAS)),
    (
        "DDIMScheduler",
        BY_TIMESTEP,
        ("v_prediction",),
        dict(clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing"),
    ),
    ("DDIMParallelScheduler", BY_TIMESTEP, ALL, dict(clip_sample=False)),
    ("DDPMScheduler", BY_TIMESTEP, ALL, dict(clip_sample=False, **BETAS)),
    ("DDPMParallelScheduler", BY_TIMESTEP, ALL, dict(clip_sample=False)),
    ("PNDMScheduler", BY_TIMESTEP, DIFFUSION, dict(skip_prk_steps=True, steps_offset=1, **BETAS)),
    ("PNDMScheduler", BY_TIMESTEP, DIFFUSION, dict(skip_prk_steps=False)),
    ("LCMScheduler", BY_TIMESTEP, ALL, {}),
    ("TCDScheduler", BY_TIMESTEP, ALL, {}),
    (
        "CogVideoXDDIMScheduler",
        BY_TIMESTEP,
        ALL,
        dict(snr_shift_scale=3.0, clip_sample=True),
    ),  # which it does not do
    (
        "CogVideoXDPMScheduler",
        BY_TIMESTEP,
        ALL,
        dict(timestep_spacing="trailing", clip_sample=True),
    ),
    ("EulerDiscreteScheduler", BY_SIGMA, ALL, BETAS),
    (
        "EulerDiscreteScheduler",
        BY_SIGMA,
        ("v_prediction",),
        dict(use_karras_sigmas=True, timestep_type="continuous", sigma_min=0.002, sigma_max=700.0),
    ),
    ("EulerAncestralDiscreteScheduler", BY_SIGMA, DIFFUSION, BETAS),
    ("LMSDiscreteScheduler", BY_SIGMA, ALL, BETAS),
    ("DPMSolverMultistepScheduler", SCALED, ALL, BETAS),
    (
        "DPMSolverMultistepScheduler",
        SCALED,
        ALL,
        dict(algorithm_type="sde-dpmsolver++", use_karras_sigmas=True),
    ),
    (
        "DPMSolverMultistepScheduler",
        SCALED,
        ("epsilon",),
        dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
    ),
    (
        "DPMSolverMultistepScheduler",
        FLOW,
        ("flow_prediction",),
        dict(use_flow_sigmas=True, flow_shift=3.0),
    ),
    ("DPMSolverSinglestepScheduler", SCALED, ALL, BETAS),
    ("DPMSolverSinglestepScheduler", FLOW, ("flow_prediction",), dict(use_flow_sigmas=True)),
    ("UniPCMultistepScheduler", SCALED, ALL, BETAS),
    (
        "UniPCMultistepScheduler",
        FLOW,
        ("flow_prediction",),
        dict(use_flow_sigmas=True, flow_shift=3.0),
    ),
    ("DEISMultistepScheduler", SCALED, ALL, BETAS),
    ("SASolverScheduler", SCALED, ALL, BETAS),
    ("FlowMatchEulerDiscreteScheduler", FLOW, (None,), dict(shift=7.0)),
    ("FlowMatchEulerDiscreteScheduler", FLOW, (None,), dict(stochastic_sampling=True)),
    ("FlowMatchEulerDiscreteScheduler", INVERTED, (None,), dict(invert_sigmas=True)),  # Mochi's
    ("FlowMatchLCMScheduler", FLOW, (None,), {}),
]
EACH = [
    pytest.param(name, form, prediction, settings, id=f"{name}-{prediction or 'flow'}-{number}")
    for number, (name, form, predictions, settings) in enumerate(CASES)
    for prediction in predictions
]


def make(name, prediction=None, settings={}):
    return getattr(diffusers, name)(
        **settings, **({"prediction_type": prediction} if prediction else {})
    )


def oracle(form, prediction, x, position):
    """What a model that knows X0 answers at x_t; position: abar or sigma."""
    if form == BY_TIMESTEP:
        alpha, sigma = math.sqrt(position), math.sqrt(1 - position)
    elif form == BY_SIGMA:
        alpha, sigma = 1.0, position
    elif form == SCALED:
        alpha, sigma = 1 / math.sqrt(1 + position**2), position / math.sqrt(1 + position**2)
    else:
        alpha, sigma = (1 - position, position) if form == FLOW else (position, 1 - position)
    noise = (x.double() - alpha * X0.double()) / sigma
    if form in (FLOW, INVERTED):
        found = noise - X0.double() if form == FLOW else X0.double() - noise  # towards larger sigma
    elif prediction == "epsilon":
        found = noise
    elif prediction == "sample":
        found = X0
    # v of the variance-preserving sample, which is what a model sees whatever the scheduler's scale
    else:
        size = math.hypot(alpha, sigma)
        found = alpha / size * noise - sigma / size * X0.double()
    return found.float()


def sample(scheduler, form, prediction, steps, step_with=None):
    """Sample with the oracle; returns the last x. step_with: what takes the steps, if another
    scheduler."""
    scheduler.set_timesteps(steps)
    step_with = step_with or scheduler
    draw = torch.Generator().manual_seed(1)
    x, old = (
        torch.randn(X0.shape, generator=draw) * getattr(scheduler, "init_noise_sigma", 1.0),
        None,
    )
    last = None
    for number, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, timestep) if hasattr(
            scheduler, "scale_model_input"
        ) else None
        table = (
            scheduler.alphas_cumprod[int(timestep)]
            if form == BY_TIMESTEP
            else scheduler.sigmas[number]
        )
        out = oracle(form, prediction, x, table.item())
        if "timestep_back" in inspect.signature(scheduler.step).parameters:  # CogVideoX's
            x, old = step_with.step(out, old, timestep, last, x, generator=draw)
        else:
            given = (
                {"generator": draw}
                if "generator" in inspect.signature(scheduler.step).parameters
                else {}
            )
            x = step_with.step(out, timestep, x, return_dict=False, **given)[0]
        last = timestep
    return x


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name, form, prediction, settings", EACH)
def test_the_true_x0_at_every_step(name, form, prediction, settings, steps):
    if name == "PNDMScheduler" and not settings["skip_prk_steps"] and steps < 5:
        pytest.skip("Runge-Kutta warm-up needs four steps")
    scheduler = make(name, prediction, settings)
    plain = sample(make(name, prediction, settings), form, prediction, steps)
    with X0Recorder(scheduler) as recorder:
        watched = sample(scheduler, form, prediction, steps)
    assert torch.equal(watched, plain)  # watching changes nothing
    assert recorder.x0.shape == (2, steps, *X0.shape[1:]) and len(recorder.timesteps) == steps
    # epsilon at sigma = 700 or abar = 5e-5 holds x0 in its last bits
    assert (recorder.x0 - X0[:, None]).abs().max() < (2e-4 if prediction == "epsilon" else 2e-5)


def test_every_scheduler_of_the_table_is_tried():
    assert {name for name, *_ in CASES} == set(SCHEDULERS)


def test_as_the_schedulers_that_compute_it_themselves():
    """pred_original_sample, clipped and thresholded as it is there, bit for bit in float32; close
    in half precision."""
    draw = torch.Generator().manual_seed(0)
    x, out = (torch.randn(1, 4, 2, 3, 3, generator=draw) for _ in range(2))
    for settings in (
        dict(clip_sample=False),
        dict(clip_sample=True, clip_sample_range=0.7),
        dict(thresholding=True, clip_sample=False),
    ):
        for name in ("DDIMScheduler", "DDPMScheduler"):
            for prediction in ALL:
                scheduler = make(name, prediction, settings)
                scheduler.set_timesteps(10)
                for timestep in scheduler.timesteps:
                    wanted = scheduler.step(out, timestep, x).pred_original_sample
                    assert torch.equal(predicted_x0(scheduler, out, timestep, x), wanted), (
                        name,
                        prediction,
                        settings,
                    )
                    half = predicted_x0(scheduler, out.half(), timestep, x.half())
                    assert (
                        half.dtype == torch.float32
                        and (half - wanted).abs().max() < 0.02 * wanted.abs().max()
                    )


def test_clipped_by_the_solvers_that_threshold():
    scheduler = make(
        "DPMSolverMultistepScheduler", "epsilon", dict(thresholding=True, sample_max_value=1.0)
    )
    scheduler.set_timesteps(5)
    x, out = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    scheduler._init_step_index(scheduler.timesteps[0])
    wanted = scheduler.convert_model_output(out, sample=x)
    assert wanted.abs().max() <= 1 and torch.equal(
        predicted_x0(scheduler, out, scheduler.timesteps[0], x), wanted
    )


def test_learned_variance_is_no_part_of_x0():
    scheduler = make(
        "DDPMScheduler", "epsilon", dict(variance_type="learned_range", clip_sample=False)
    )
    scheduler.set_timesteps(5)
    x, out = torch.randn(1, 3, 4, 4), torch.randn(1, 6, 4, 4)
    wanted = scheduler.step(out, scheduler.timesteps[1], x).pred_original_sample
    assert torch.equal(predicted_x0(scheduler, out, scheduler.timesteps[1], x), wanted)


def test_timesteps_of_each_token():
    scheduler = make("FlowMatchEulerDiscreteScheduler")
    scheduler.set_timesteps(5)
    x, out = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    each = torch.tensor([[0.0, 250.0, 1000.0]])
    found = predicted_x0(scheduler, out, scheduler.timesteps[0], x, per_token_timesteps=each)
    assert torch.allclose(found, x - torch.tensor([0, 0.25, 1.0]).view(1, 3, 1) * out)


def test_begin_index_and_second_half_of_a_schedule():
    """As image-to-video with a strength: the first step is not the schedule's."""
    for name, settings in (
        ("DPMSolverMultistepScheduler", {}),
        ("FlowMatchEulerDiscreteScheduler", {}),
    ):
        scheduler = make(name, None, settings)
        scheduler.set_timesteps(10)
        scheduler.set_begin_index(4)
        found = []
        with watch_steps(
            scheduler, lambda step, timestep, x0, prev: found.append((step, timestep, x0))
        ):
            for number in range(4, 10):
                x = torch.randn(X0.shape)
                out = oracle(
                    SCALED if settings == {} and "DPM" in name else FLOW,
                    "epsilon",
                    x,
                    scheduler.sigmas[number].item(),
                )
                scheduler.step(out, scheduler.timesteps[number], x)
        assert [step for step, *_ in found] == list(range(6))
        assert [timestep for _, timestep, _ in found] == scheduler.timesteps[4:].tolist()
        assert max((x0 - X0).abs().max() for *_, x0 in found) < 1e-4


def test_unknown_schedulers_and_predictions_are_refused_by_name():
    for name in ("HeunDiscreteScheduler", "EDMEulerScheduler", "KDPM2DiscreteScheduler"):
        with pytest.raises(InputError, match=f"^{name}: no closed form"):
            watch_steps(make(name), None)

    class MyScheduler(diffusers.DDIMScheduler):
        """Whose step may be anything."""

    with pytest.raises(InputError, match="^MyScheduler"):
        watch_steps(MyScheduler(), None)
    scheduler = make("DDIMScheduler", "other")
    scheduler.set_timesteps(5)
    with pytest.raises(InputError, match="prediction_type other"):
        predicted_x0(scheduler, X0, scheduler.timesteps[0], X0)


def test_restored_after_errors_and_nested_use_refused():
    scheduler = make("DDIMScheduler", "epsilon", dict(clip_sample=False))
    before, config = dict(vars(scheduler)), dict(scheduler.config)
    with pytest.raises(RuntimeError, match="mine"), watch_steps(scheduler, lambda *_: None):
        assert (
            isinstance(scheduler, diffusers.DDIMScheduler)
            and type(scheduler).__name__ == "DDIMScheduler"
        )
        assert "eta" in inspect.signature(scheduler.step).parameters  # as pipelines ask
        with (
            pytest.raises(InputError, match="one watch at a time"),
            watch_steps(scheduler, lambda *_: None),
        ):
            pass
        raise RuntimeError("mine")
    assert type(scheduler) is diffusers.DDIMScheduler and vars(scheduler).keys() == before.keys()
    assert dict(scheduler.config) == config

    def fails(*_):
        raise RuntimeError("in on_step")

    with pytest.raises(RuntimeError, match="in on_step"), watch_steps(scheduler, fails):
        sample(scheduler, BY_TIMESTEP, "epsilon", 5)
    assert type(scheduler) is diffusers.DDIMScheduler
    assert torch.isfinite(sample(scheduler, BY_TIMESTEP, "epsilon", 5)).all()  # as good as new


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_watched_with_it_and_steps_itself(copied):
    scheduler = make("UniPCMultistepScheduler", "epsilon", BETAS)
    with X0Recorder(scheduler) as recorder:
        twin = copied(scheduler)
        twin.set_timesteps(5)
        sample(twin, SCALED, "epsilon", 5)
    assert recorder.x0.shape[1] == 5 and (recorder.x0 - X0[:, None]).abs().max() < 2e-4
    assert scheduler.step_index is None  # the original took no step
    sample(twin, SCALED, "epsilon", 5)  # it outlives the watch
    assert recorder.x0.shape[1] == 5
    with recorder:  # which may be used again
        sample(twin, SCALED, "epsilon", 5)
        sample(scheduler, SCALED, "epsilon", 3)
    assert recorder.x0.shape[1] == 3


def test_set_timesteps_may_be_replaced_or_called_before():
    for replaced in (False, True):
        scheduler = make("EulerDiscreteScheduler", "epsilon", BETAS)
        if replaced:
            scheduler.set_timesteps = partial(
                diffusers.EulerDiscreteScheduler.set_timesteps, scheduler
            )
        scheduler.set_timesteps(5)
        begun, seen = [], []
        with watch_steps(scheduler, lambda step, *_: seen.append(step), on_begin=begun.append):
            x = torch.randn(X0.shape)
            for timestep in scheduler.timesteps:
                scheduler.scale_model_input(x, timestep)
                x = scheduler.step(torch.zeros_like(x), timestep, x).prev_sample
        assert begun == [scheduler.timesteps.tolist()] and seen == [0, 1, 2, 3, 4]


def test_two_samplings_or_two_schedulers_in_one_watch():
    scheduler = make("DDIMScheduler", "epsilon", dict(clip_sample=False))
    with (
        pytest.raises(InputError, match="set up again after 5 steps"),
        watch_steps(scheduler, lambda *_: None),
    ):
        sample(scheduler, BY_TIMESTEP, "epsilon", 5)
        sample(scheduler, BY_TIMESTEP, "epsilon", 5)
    with pytest.raises(InputError, match="several copies"), watch_steps(scheduler, lambda *_: None):
        twin = copy.deepcopy(scheduler)
        for each in (scheduler, twin):
            each.set_timesteps(5)
        for each in (scheduler, twin):
            each.step(X0, each.timesteps[0], X0)


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "CogVideoXDPMScheduler",
        "UniPCMultistepScheduler",
        "PNDMScheduler",
        "DPMSolverSinglestepScheduler",
        "LCMScheduler",
    ],
)
def test_what_the_watcher_returns_takes_prev_samples_place(name):
    """For one video of a batch, from a step on: it stays what it is made, and the other's bits stay
    as they were."""
    form = SCALED if name.startswith(("UniPC", "DPM")) else BY_TIMESTEP
    settings = dict(skip_prk_steps=True) if name == "PNDMScheduler" else {}
    plain = sample(make(name, "v_prediction", settings), form, "v_prediction", 6)
    scheduler, steps, blanks = make(name, "v_prediction", settings), [], [0]

    def on_step(step, timestep, x0, prev_sample):
        assert x0.shape == prev_sample.shape
        steps.append(step)

    def blank(tensor):
        if len(steps) > 2:
            tensor = tensor.clone()
            tensor[0] = 0
            blanks[0] += 1
        return tensor

    with watch_steps(scheduler, on_step, on_call=blank):
        found = sample(scheduler, form, "v_prediction", 6)
    assert steps == list(range(6)) and blanks[0] >= 4
    assert torch.equal(found[1], plain[1]) and not found[0].any()

    scheduler = make(name, "v_prediction", settings)
    with watch_steps(
        scheduler,
        lambda step, timestep, x0, prev: torch.full_like(prev, 5.0) if step == 5 else None,
    ):
        assert (sample(scheduler, form, "v_prediction", 6) == 5).all()


def test_outputs_as_objects_are_replaced_too():
    scheduler = make("DDIMScheduler", "epsilon", dict(clip_sample=False))
    scheduler.set_timesteps(5)
    with watch_steps(scheduler, lambda *_: None, on_call=torch.zeros_like):
        found = scheduler.step(X0, scheduler.timesteps[0], X0)
        pair = scheduler.step(X0, scheduler.timesteps[1], X0, return_dict=False)
    assert len(pair) == 2 and not pair[0].any() and not pair[1].any()
    assert (
        not found.prev_sample.any() and not found.pred_original_sample.any() and not found[0].any()
    )


def test_a_scheduler_in_words():
    found = describe_scheduler(make("DDIMScheduler", "epsilon", dict(trained_betas=[0.1, 0.2])))
    assert found["class"] == "DDIMScheduler" and found["prediction_type"] == "epsilon"
    assert found["trained_betas"] == [0.1, 0.2]
    assert not any(key.startswith("_") for key in found)
