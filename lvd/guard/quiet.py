"""A stop is no error of the pipeline: modular pipelines log a traceback for each block that an
exception passes, and these records are left out for UnsafeVideoError. All others stay."""

import logging
import sys

from lvd.guard.result import UnsafeVideoError

LOGGER = "diffusers.modular_pipelines.modular_pipeline"


def is_not_a_stop(record):
    """Whether a record was logged while something else than a guard's stop was handled."""
    return not isinstance(sys.exc_info()[1], UnsafeVideoError)


def log_no_stops():
    """Leave stops out of the log of modular pipelines, in this process; once is enough."""
    logging.getLogger(LOGGER).addFilter(is_not_a_stop)
