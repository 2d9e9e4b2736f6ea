"""Our x0 against the scheduler's own last step: the one that ends without noise returns x0.

Each setting of each scheduler, and each argument of its `step`, is changed by itself. The model's
outputs are random numbers, so a wrong sign or factor shows.
"""

import inspect

import diffusers
import pytest
import torch

from lvd.errors import InputError
from lvd.x0.predicted import predicted_x0
from lvd.x0.schedulers import ANGLE, EDM, FLOW, SCHEDULERS
from tests.worlds.oracle import BETAS, dmd_arguments, make, set_steps

SHAPE = (2, 4, 3, 4, 4)
PREDICTIONS = ("epsilon", "v_prediction", "sample")
KNOWN = {EDM: PREDICTIONS[:2], FLOW: (None,), ANGLE: (None,)}  # by form; else PREDICTIONS
FORMULAS = (  # tried with each prediction
    *("clip_sample", "thresholding", "rescale_betas_zero_snr", "algorithm_type", "predict_x0"),
    *("use_flow_sigmas", "sigma_data"),
)
SHARED = dict(set_alpha_to_one=True, skip_prk_steps=True, clip_sample=False, stages=1)
SHARED |= dict(stage_range=[0, 1], timestep_scaling=1e6, n_grid=2, **BETAS)
SETTINGS = {  # what is tried of each setting, beside its default
    "clip_sample": [True],
    "thresholding": [True],
    "sample_max_value": [2.0],
    "timestep_spacing": ["linspace", "leading", "trailing"],
    "steps_offset": [1],
    "rescale_betas_zero_snr": [True],
    "set_alpha_to_one": [False],
    "skip_prk_steps": [False],
    "interpolation_type": ["log_linear"],
    "use_karras_sigmas": [True],
    "use_exponential_sigmas": [True],
    "use_beta_sigmas": [True],
    "timestep_type": ["continuous"],
    "final_sigmas_type": ["sigma_min"],
    "solver_order": [1, 2, 3],
    "algorithm_type": [
        "dpmsolver",
        "dpmsolver++",
        "sde-dpmsolver",
        "sde-dpmsolver++",
        "data_prediction",
        "noise_prediction",
        "deis",
    ],
    "solver_type": ["midpoint", "heun", "bh1", "bh2", "logrho"],
    "lower_order_final": [True, False],
    "euler_at_final": [True],
    "use_lu_lambdas": [True],
    "use_flow_sigmas": [True],
    "flow_shift": [3.0],
    "predict_x0": [False],
    "disable_corrector": [[0]],
    "shift_terminal": [0.1],
    "predictor_order": [1, 3],
    "corrector_order": [0, 1, 3],
    "shift": [3.0],
    "scheduler_type": ["euler"],
    "sigma_data": [1.0],
    "sigma_schedule": ["exponential"],
    "invert_sigmas": [True],
    "stochastic_sampling": [True],
    "eta": [0.0, 0.5],
    "s_noise": [0.5],
    "prediction_type": ["epsilon", "v_prediction", "sample", "flow_prediction"],
    "trained_betas": [[0.001 * number for number in range(1, 21)] * 50],
    "variance_type": ["fixed_large", "learned", "learned_range"],
    "num_policy_substeps": [16],
    "final_step_size_scale": [1.0],
}
# They make other tables, or are read by pipelines alone: no other formula.
TABLES = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "snr_shift_scale"),
    *("dynamic_thresholding_ratio", "clip_sample_range", "original_inference_steps"),
    *("timestep_scaling", "sigma_min", "sigma_max", "lambda_min_clipped", "rho", "gamma", "eps"),
    *("use_dynamic_shifting", "time_shift_type", "base_shift", "max_shift", "tau_func"),
    *("base_image_seq_len", "max_image_seq_len", "stages", "stage_range", "n_grid"),
    *("solver_p", "scale_factors", "upscale_mode"),
    *("use_timesteps", "noise_sampler_seed"),
)
ARGUMENTS = {  # of `step`
    "eta": [0.0, 1.0],
    "use_clipped_model_output": [True],
    "s_churn": [1.0],
    "s_tmin": [1e9],
    "s_tmax": [0.0],
    "s_noise": [0.5],
    "order": [1, 4],
}
# These carry what `sample` below gives, or say nothing of x0.
CARRIED = (
    *("self", "model_output", "timestep", "sample", "generator", "return_dict", "variance_noise"),
    *("old_pred_original_sample", "timestep_back", "pred_original_sample", "per_token_timesteps"),
    *("cur_sampling_step", "dmd_noisy_tensor", "dmd_sigmas", "dmd_timesteps", "all_timesteps"),
    "r_timestep",
)
NOT_THE_END = "its last step ends with some noise left"
REFUSES = "the scheduler has no code for it"
MIXED = "its last step mixes in earlier predictions"
NOISED = "the step adds noise that the model has not seen"
INFINITE = "the scheduler's own formula divides by zero there"
NO_X0 = "nothing of x0 is left at the first step, where the output says nothing of it"
PIXELS = "of the scheduler's own code it is for three channels"
UNDEFINED = [  # (class, setting or argument, value, prediction_type; None: any), reason
    (("DEISMultistepScheduler", None, None, None), NOT_THE_END),
    (("SASolverScheduler", None, None, None), NOT_THE_END),
    (("TCDScheduler", None, None, None), NOT_THE_END),
    ((None, "set_alpha_to_one", False, None), NOT_THE_END),
    ((None, "final_sigmas_type", "sigma_min", None), NOT_THE_END),
    (("EulerDiscreteScheduler", "interpolation_type", "log_linear", None), NOT_THE_END),
    (("FlowMatchLCMScheduler", "invert_sigmas", True, None), "it ends in noise"),
    (("LMSDiscreteScheduler", "order", 1, None), None),  # which is defined
    (("LMSDiscreteScheduler", None, None, None), MIXED),
    ((None, "s_churn", 1.0, None), NOISED),
    ((None, "variance_type", "learned", None), PIXELS),
    ((None, "variance_type", "learned_range", None), PIXELS),
    (("UniPCMultistepScheduler", "lower_order_final", False, None), INFINITE),
    (("UniPCMultistepScheduler", "predict_x0", False, None), INFINITE),
    (("UniPCMultistepScheduler", "solver_type", "bh1", None), INFINITE),
    (("HeliosScheduler", "lower_order_final", False, None), INFINITE),
    (("HeliosScheduler", "predict_x0", False, None), INFINITE),
    (("HeliosScheduler", "solver_type", "bh1", None), INFINITE),
    (("HeliosScheduler", "thresholding", True, None), REFUSES),
    (("HeliosScheduler", None, None, "epsilon"), NO_X0),
    (("HeliosScheduler", "prediction_type", "epsilon", None), NO_X0),
    (("LCMScheduler", "rescale_betas_zero_snr", True, "epsilon"), NO_X0),
]


def reason_of(*case):
    """Why a case has no last step to compare with, or None."""
    for pattern, reason in UNDEFINED:
        if all(wanted in (None, found) for wanted, found in zip(pattern, case, strict=True)):
            return reason
    return None


def variations(name):
    """(setting or argument, value, prediction_type): one changed of each, and none."""
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    predictions = KNOWN.get(SCHEDULERS[name], PREDICTIONS) if "prediction_type" in known else None
    for prediction in predictions or (None,):
        yield None, None, prediction
    for setting in known:
        for value in SETTINGS.get(setting, []):
            for prediction in predictions if predictions and setting in FORMULAS else (None,):
                yield setting, value, prediction
    for argument in inspect.signature(kind.step).parameters:
        for value in ARGUMENTS.get(argument, []):
            yield argument, value, None


def last_step(name, changed, value, prediction, predict=predicted_x0):
    """Sample with random outputs; returns our x0 of the last step, and what it returns."""
    kind = getattr(diffusers, name)
    known = inspect.signature(kind.__init__).parameters
    settings = {setting: it for setting, it in SHARED.items() if setting in known}
    settings |= {changed: value} if changed in known else {}
    scheduler = make(name, prediction, settings)
    set_steps(scheduler, 1 if name == "PNDMScheduler" else 4)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(SHAPE, generator=draw)
    parameters = inspect.signature(kind.step).parameters
    shared = {"generator": draw} if "generator" in parameters else {}
    shared |= {changed: value} if changed in ARGUMENTS and changed in parameters else {}
    old = before = None
    calls = scheduler.num_inference_steps if name == "SCMScheduler" else len(scheduler.timesteps)
    for number, timestep in enumerate(scheduler.timesteps[:calls]):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(x, timestep)
        out = torch.randn(SHAPE, generator=draw)
        out = torch.cat([out, out], -1) if name == "PiflowScheduler" else out
        x0 = predict(scheduler, out, timestep, x)
        if "timestep_back" in parameters:
            x, old = scheduler.step(out, old, timestep, before, x, **shared)
        else:
            if "dmd_sigmas" in parameters:
                shared |= dmd_arguments(scheduler, number, draw) | {"dmd_noisy_tensor": x}
            x = scheduler.step(out, timestep, x, return_dict=False, **shared)[0]
        before = timestep
        if name == "PNDMScheduler":
            break
    return x0, x


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_last_step_returns_our_x0(name):
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="DPMSolverSDEScheduler needs torchsde")
    compared = 0
    for case in variations(name):
        try:
            found, wanted = last_step(name, *case)
            is_close = bool((found - wanted).abs().max() < 1e-4 * found.abs().max())
        except InputError:  # which is right where the scheduler refuses it too
            if not reason_of(name, *case):
                with pytest.raises((ValueError, NotImplementedError)):
                    last_step(name, *case, predict=lambda *_: None)
            continue
        except (ValueError, NotImplementedError):  # the scheduler does not have it
            continue
        except Exception:
            assert reason_of(name, *case), case
            continue
        assert is_close or reason_of(name, *case), case
        compared += is_close
    assert compared or reason_of(name, None, None, None) == NOT_THE_END


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_setting_and_argument_is_tried_or_said_to_change_no_formula(name):
    kind = getattr(diffusers, name)
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde", reason="DPMSolverSDEScheduler needs torchsde")
    settings = set(inspect.signature(kind.__init__).parameters) - {"self"}
    assert settings <= {*SETTINGS, *TABLES}
    assert set(inspect.signature(kind.step).parameters) <= {*ARGUMENTS, *CARRIED}


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("thresholding", [False, True])
@pytest.mark.parametrize("name", ["DEISMultistepScheduler", "SASolverScheduler"])
def test_as_the_solvers_convert_it_that_end_with_noise(name, thresholding, prediction):
    scheduler = make(name, prediction, dict(thresholding=thresholding, **BETAS))
    scheduler.set_timesteps(4)
    x, out = torch.randn(SHAPE), torch.randn(SHAPE)
    scheduler._init_step_index(scheduler.timesteps[1])
    found = predicted_x0(scheduler, out, scheduler.timesteps[1], x)
    wanted = scheduler.convert_model_output(out, sample=x)
    if name == "DEISMultistepScheduler":  # to noise
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[1])
        wanted = (x - sigma * wanted) / alpha
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * found.abs().max())


@pytest.mark.parametrize("name", ["LMSDiscreteScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_as_they_compute_it_before_they_mix_it(name, prediction):
    scheduler = make(name, prediction, dict(timestep_spacing="trailing", **BETAS))
    scheduler.set_timesteps(4)
    x = torch.randn(SHAPE)
    for timestep in scheduler.timesteps:
        out = torch.randn(SHAPE)
        found = predicted_x0(scheduler, out, timestep, x)
        x, wanted = scheduler.step(out, timestep, x, return_dict=False)
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * found.abs().max())


def test_noise_that_a_step_adds_first_is_no_part_of_x0():
    """The model has seen the sample without it. (s_churn)"""
    scheduler = make("EulerDiscreteScheduler", "epsilon", BETAS)
    scheduler.set_timesteps(4)
    x0, noise = torch.randn(2, *SHAPE)
    x = x0 + scheduler.sigmas[0] * noise
    found = predicted_x0(scheduler, noise, scheduler.timesteps[0], x)
    assert torch.allclose(found, x0, atol=1e-4)
    own = scheduler.step(noise, scheduler.timesteps[0], x, s_churn=2.0).pred_original_sample
    assert (own - x0).abs().max() > 1


@pytest.mark.parametrize("stochastic", [False, True])
def test_each_token_has_a_sigma_of_its_own(stochastic):
    """As LTXConditionPipeline calls it: with the negative velocity; 0 where nothing is denoised."""
    scheduler = make(
        "FlowMatchEulerDiscreteScheduler", None, dict(stochastic_sampling=stochastic, shift=3.0)
    )
    scheduler.set_timesteps(5)
    x0, noise = torch.randn(2, 1, 3, 8)
    strength = torch.tensor([[0.0, 300.0, 1000.0]])
    x = x0
    sign = 1 if stochastic else -1
    for number, timestep in enumerate(scheduler.timesteps):
        each = torch.minimum(timestep, strength)
        sigma = (each / 1000)[..., None]
        x = (1 - sigma) * x0 + sigma * noise
        given = dict(per_token_timesteps=each)
        out = sign * (noise - x0)
        assert torch.allclose(predicted_x0(scheduler, out, timestep, x, **given), x0, atol=1e-5)
        out = torch.randn(x.shape)
        found = predicted_x0(scheduler, out, timestep, x, **given)
        prev = scheduler.step(out, timestep, x, return_dict=False, **given)[0]
        ends = number == 4
        assert torch.allclose(found[:, :1], prev[:, :1])
        assert torch.allclose(found, prev, atol=1e-5) == ends


def test_tokens_of_inverted_sigmas_are_refused():
    scheduler = make("FlowMatchEulerDiscreteScheduler", None, dict(invert_sigmas=True))
    scheduler.set_timesteps(5)
    x = torch.randn(1, 3, 8)
    with pytest.raises(InputError, match="per_token_timesteps.*invert_sigmas=False is needed"):
        predicted_x0(scheduler, x, scheduler.timesteps[0], x, per_token_timesteps=torch.ones(1, 3))
