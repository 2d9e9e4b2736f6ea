"""The pretrained VideoMAE that size base starts from: a folder, the local cache, or the hub."""

from pathlib import Path

from lvd.errors import InputError, words_of

SECONDS = 10  # for the hub to answer


def load_base_model(base_model, settings):
    """Load a pretrained VideoMAEForVideoClassification.

    Args:
        base_model: local folder or hub name. The hub is asked once, and only for a model that is
            not in the local cache.
        settings: keywords of from_pretrained.

    Raises:
        InputError: there is no such model, or it cannot be had now.
    """
    from transformers import logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # "newly initialised classifier" is what fine-tuning means
    try:
        if Path(base_model).is_dir():
            return _from_pretrained(base_model, settings, local_files_only=True)
        if _is_cached(base_model):
            try:
                return _from_pretrained(base_model, settings, local_files_only=True)
            except OSError:  # its config alone is there
                pass
        _need_hub(base_model)
        return _from_pretrained(base_model, settings)
    finally:
        logging.set_verbosity(shown)


def _from_pretrained(base_model, settings, **more):
    from transformers import VideoMAEForVideoClassification

    try:
        return VideoMAEForVideoClassification.from_pretrained(base_model, **settings, **more)
    except OSError as error:
        if more and not Path(base_model).is_dir():
            raise
        raise _refusal(base_model, words_of(error)) from error
    # Damaged files make safetensors, torch and transformers raise errors of their own.
    except Exception as error:
        raise _refusal(base_model, words_of(error)) from error


def _is_cached(base_model):
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(base_model, "config.json"), str)
    except HFValidationError:
        raise _refusal(base_model, "no such folder, and no name of the hub") from None


def _need_hub(base_model):
    """Ask the hub for the model once: what loads it would ask five times."""
    from huggingface_hub import HfApi, constants, errors

    advice = "give --base_model FOLDER, or set HF_HOME to the folder of a cache that holds it"
    if constants.HF_HUB_OFFLINE:
        raise _refusal(base_model, f"not in the cache, and HF_HUB_OFFLINE is set; {advice}")
    try:
        HfApi().model_info(base_model, timeout=SECONDS)
    except (errors.HTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403, 404):
            reason = f"the hub answers {status}: no such model, or it needs a token (HF_TOKEN)"
        else:
            cause = f"answers {status}" if status else f"is not reached ({type(error).__name__})"
            reason = f"not in the cache, and the hub {cause}; {advice}"
        raise _refusal(base_model, reason) from error


def _refusal(base_model, reason):
    return InputError(
        f"--base_model {str(base_model)[:100]}: cannot be loaded as a VideoMAE model ({reason})"
    )
