"""x0 of every scheduler against closed forms: with a model that knows the true x0, the recorder
returns it at every step."""

import diffusers
import pytest
import torch

from lvd import X0Recorder, predicted_x0, watch_steps
from lvd.errors import InputError
from lvd.x0.schedulers import REFUSED, SCHEDULERS, describe_scheduler
from tests.worlds.oracle import ALL, CASES, X0, make, sample

STEPS = (1, 2, 5, 20, 50)
EACH = [
    pytest.param(name, form, prediction, settings, id=f"{name}-{prediction or 'flow'}-{number}")
    for number, (name, form, predictions, settings) in enumerate(CASES)
    for prediction in predictions
]


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


def test_every_class_of_diffusers_is_in_the_table_or_has_a_reason():
    classes = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    assert not set(SCHEDULERS) & set(REFUSED)
    assert set(SCHEDULERS) | set(REFUSED) == classes - {"KarrasDiffusionSchedulers"}


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


def test_unknown_schedulers_and_predictions_are_refused_by_name():
    reasons = {
        "CosineDPMSolverMultistepScheduler": "sound",
        "VQDiffusionScheduler": "tokens",
        "DDIMInverseScheduler": "from the video to noise",
        "UnCLIPScheduler": "images alone",
    }
    for name, reason in reasons.items():
        scheduler = diffusers.DDIMScheduler()
        scheduler.__class__ = type(name, (diffusers.DDIMScheduler,), {})
        with pytest.raises(InputError, match=f"^{name}: it .*{reason}"):
            watch_steps(scheduler, None)
    for name in ("HeliosScheduler", "HeliosDMDScheduler"):
        with pytest.raises(InputError, match=f"^{name}: its 3 stages .*stages=1 is needed"):
            watch_steps(make(name), None)

    class MyScheduler(diffusers.DDIMScheduler):
        """Whose step may be anything."""

    with pytest.raises(InputError, match="^MyScheduler: no closed form") as raised:
        watch_steps(MyScheduler(), None)
    assert len(str(raised.value)) < 300
    scheduler = make("DDIMScheduler", "other")
    scheduler.set_timesteps(5)
    with pytest.raises(InputError, match="prediction_type other"):
        predicted_x0(scheduler, X0, scheduler.timesteps[0], X0)


def test_a_scheduler_in_words():
    found = describe_scheduler(make("DDIMScheduler", "epsilon", dict(trained_betas=[0.1, 0.2])))
    assert found["class"] == "DDIMScheduler" and found["prediction_type"] == "epsilon"
    assert found["trained_betas"] == [0.1, 0.2]
    assert not any(key.startswith("_") for key in found)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "CogVideoXDDIMScheduler"])
def test_zero_terminal_snr_tells_nothing_with_epsilon(name):
    """At the first step the noisy sample is all noise: x0 would be divided by zero."""
    config = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)
    for prediction in ("epsilon", "v_prediction"):
        scheduler = make(name, prediction, config)
        scheduler.set_timesteps(5)
        first, second = scheduler.timesteps[:2]
        assert predicted_x0(scheduler, X0, second, X0).isfinite().all()
        if prediction == "v_prediction":
            assert predicted_x0(scheduler, X0, first, X0).isfinite().all()
            continue
        with pytest.raises(InputError, match="zero terminal SNR.*v_prediction is needed"):
            predicted_x0(scheduler, X0, first, X0)
