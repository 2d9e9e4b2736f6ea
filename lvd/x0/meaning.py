"""Which settings of a scheduler change what x0 means: detectors and a pipeline must share them."""

from inspect import Parameter, signature

from lvd.x0.schedulers import (
    ANGLE,
    EDM,
    FLOW,
    FLOWS,
    SCHEDULERS,
    form_of,
    is_clipped,
    is_thresholded,
    plain,
)

# The settings that tell how much noise the model's timesteps mean. Flows have none of them.
BETAS = (
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "trained_betas",
    "rescale_betas_zero_snr",
    "snr_shift_scale",
)


def full_scheduler(recorded):
    """Return all settings of a scheduler of which only some are recorded.

    The others are the defaults of its class. Settings that the class does not know are left out:
    `from_config` keeps those of another scheduler. Nothing is made of what a file says: a class
    that x0 is not known of here is left as it is.
    """
    import diffusers

    name = recorded.get("class") if isinstance(recorded, dict) else None
    is_known = isinstance(name, str) and name in SCHEDULERS
    kind = getattr(diffusers, name, None) if is_known else None
    if kind is None:
        return recorded
    full = {"class": name}
    for setting, parameter in signature(kind.__init__).parameters.items():
        if setting in recorded:
            full[setting] = recorded[setting]
        elif parameter.default is not Parameter.empty:
            full[setting] = plain(parameter.default)
    return full


def meaning_of(description):
    """Return the settings of a scheduler that change what x0 means, and no others.

    With equal meanings, the same model says the same of x0 at a noise level, whatever the class
    of the scheduler, the number of its steps, their spacing and the order of the solver.

    Args:
        description: what `describe_scheduler` returns; settings that are missing have the
            defaults of the class.

    Returns:
        {setting: value}: prediction_type, where every flow is "flow_prediction"; unless it is a
        flow, the settings of BETAS that are in use, or sigma_data; clip_sample_range where x0 is
        clipped; dynamic_thresholding_ratio and sample_max_value where it is thresholded. The
        whole description where x0 of the class is not known here.
    """
    full = full_scheduler(description)
    form = form_of(full)
    if form is None:
        return dict(full)
    meaning = {"prediction_type": _prediction(form, full)}
    if form in (EDM, ANGLE):
        meaning["sigma_data"] = full.get("sigma_data")
    elif not (form in FLOWS or full.get("use_flow_sigmas")):
        meaning.update(_betas(full))
    if is_thresholded(full):
        for setting in ("dynamic_thresholding_ratio", "sample_max_value"):
            meaning[setting] = full.get(setting)
    elif is_clipped(full):
        meaning["clip_sample_range"] = full.get("clip_sample_range")
    return meaning


def _prediction(form, full):
    """What the model predicts, in one name for all schedulers."""
    if form == FLOW:
        return "inverted_flow_prediction" if full.get("invert_sigmas") else "flow_prediction"
    if form in FLOWS:
        return form
    prediction = full.get("prediction_type")
    return "sample" if prediction == "original_sample" else prediction


def _betas(full):
    """The settings of BETAS that are in use, of a full description."""
    if full.get("trained_betas") is not None:
        used = {"trained_betas": full["trained_betas"]}
    else:
        used = {name: full.get(name) for name in ("num_train_timesteps", "beta_schedule")}
        if full.get("beta_schedule") in ("linear", "scaled_linear", "sigmoid"):
            used |= {name: full.get(name) for name in ("beta_start", "beta_end")}
    used["rescale_betas_zero_snr"] = bool(full.get("rescale_betas_zero_snr"))
    used["snr_shift_scale"] = full.get("snr_shift_scale", 1.0)
    return used
