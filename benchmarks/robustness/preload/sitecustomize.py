"""Python reads this at its start: one process of a launch gets a signal at a file operation.

STOP_RANK, STOP_AT and STOP_SIGNAL say which process, at which operation and what signal.
"""

import os

if os.environ.get("RANK") is not None and os.environ["RANK"] == os.environ.get("STOP_RANK"):
    from benchmarks.robustness.operations import Operations

    Operations(int(os.environ["STOP_AT"]), int(os.environ["STOP_SIGNAL"])).install()
