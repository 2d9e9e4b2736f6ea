"""Which settings of a scheduler change what x0 means: the same model in other schedulers."""

import inspect
import json

import diffusers
import pytest

from lvd.x0.meaning import meaning_of
from lvd.x0.schedulers import SCHEDULERS, describe_scheduler
from tests.worlds.oracle import BETAS, CASES, make

DDIM = dict(clip_sample=False, prediction_type="v_prediction", **BETAS)
SAME = [  # class and settings of schedulers for the model of DDIMScheduler(**DDIM)
    ("DDIMScheduler", dict(timestep_spacing="trailing", steps_offset=1, set_alpha_to_one=False)),
    ("DDIMScheduler", dict(clip_sample_range=5.0, dynamic_thresholding_ratio=0.5)),  # not in use
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", dict(use_karras_sigmas=True, final_sigmas_type="sigma_min")),
    ("EulerAncestralDiscreteScheduler", {}),
    ("DPMSolverMultistepScheduler", dict(solver_order=3, algorithm_type="sde-dpmsolver++")),
    ("DPMSolverSinglestepScheduler", dict(use_karras_sigmas=True)),
    ("UniPCMultistepScheduler", dict(solver_order=3, predict_x0=False)),
    ("LCMScheduler", dict(original_inference_steps=20, timestep_scaling=5.0)),
    ("LMSDiscreteScheduler", {}),
    ("PNDMScheduler", dict(skip_prk_steps=True)),
]
OTHER = [  # settings that make another x0 of the same model's output
    dict(beta_end=0.013),
    dict(beta_start=0.001),
    dict(beta_schedule="linear"),
    dict(beta_schedule="squaredcos_cap_v2"),
    dict(trained_betas=[0.1, 0.2]),
    dict(num_train_timesteps=500),
    dict(rescale_betas_zero_snr=True),
    dict(prediction_type="epsilon"),
    dict(prediction_type="sample"),
    dict(clip_sample=True),
    dict(clip_sample=True, clip_sample_range=3.0),
    dict(thresholding=True),
    dict(thresholding=True, sample_max_value=4.0),
    dict(thresholding=True, dynamic_thresholding_ratio=0.9),
]
FLOWS = [
    ("FlowMatchEulerDiscreteScheduler", {}),
    ("FlowMatchEulerDiscreteScheduler", dict(shift=7.0, use_karras_sigmas=True)),
    ("FlowMatchEulerDiscreteScheduler", dict(stochastic_sampling=True, shift_terminal=0.1)),
    ("FlowMatchLCMScheduler", dict(shift=3.0)),
    (
        "UniPCMultistepScheduler",
        dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
    ),
    (
        "DPMSolverMultistepScheduler",
        dict(prediction_type="flow_prediction", use_flow_sigmas=True, beta_end=0.5),
    ),
]


def meaning(name, settings):
    return meaning_of(describe_scheduler(make(name, None, settings)))


@pytest.mark.parametrize("name, settings", SAME)
def test_the_same_model_in_other_schedulers(name, settings):
    known = inspect.signature(getattr(diffusers, name)).parameters
    shared = {setting: value for setting, value in DDIM.items() if setting in known}
    assert meaning(name, shared | settings) == meaning("DDIMScheduler", DDIM)


@pytest.mark.parametrize("name, settings", SAME)
def test_a_pipeline_whose_scheduler_is_changed(name, settings):
    """`from_config` keeps settings that the new class does not know."""
    before = make("DDIMScheduler", None, DDIM)
    after = getattr(diffusers, name).from_config(before.config, **settings)
    assert meaning_of(describe_scheduler(after)) == meaning("DDIMScheduler", DDIM)


def test_settings_that_make_another_x0():
    found = [meaning("DDIMScheduler", DDIM | settings) for settings in [{}, *OTHER]]
    for number, one in enumerate(found):
        assert found.count(one) == 1, (number, one)


def test_flows():
    found = [meaning(name, settings) for name, settings in FLOWS]
    assert all(one == found[0] for one in found)
    assert meaning("FlowMatchEulerDiscreteScheduler", dict(invert_sigmas=True)) != found[0]
    assert meaning("UniPCMultistepScheduler", {}) != found[0]


def test_settings_that_are_not_in_use():
    shared = dict(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    with_ends = meaning("DDIMScheduler", dict(beta_start=0.1, beta_end=0.2, **shared))
    assert with_ends == meaning("DDIMScheduler", shared)
    both = meaning("DDIMScheduler", dict(thresholding=True, clip_sample=True))
    assert both == meaning("DDIMScheduler", dict(thresholding=True, clip_sample=False))


def test_incomplete_descriptions_have_the_defaults_of_the_class():
    whole = describe_scheduler(make("DDIMScheduler", None, dict(beta_end=0.5)))
    assert meaning_of({"class": "DDIMScheduler", "beta_end": 0.5}) == meaning_of(whole)
    assert meaning_of({"class": "MyScheduler", "beta_end": 1}) == {
        "class": "MyScheduler",
        "beta_end": 1,
    }


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_class_of_the_table_has_a_meaning_that_json_keeps(name):
    prediction, settings = next((case[2][0], case[3]) for case in CASES if case[0] == name)
    found = meaning_of(describe_scheduler(make(name, prediction, settings)))
    assert "class" not in found and json.loads(json.dumps(found)) == found
