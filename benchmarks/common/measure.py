"""Run a command and append its wall seconds and peak memory (MiB, largest single process) to a CSV.

example:
  python benchmarks/common/measure.py --log steps.csv --name train -- python train_mae.py
"""

import argparse
import csv
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log", required=True, help="CSV to append to")
    parser.add_argument("--name", required=True, help="what the row is called")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="after --")
    args = parser.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    began = time.time()
    status = finished(command)
    seconds = time.time() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    append(Path(args.log), [args.name, f"{seconds:.1f}", f"{peak:.0f}", status])
    return status


def finished(command):
    """Run a command to its end and return its exit status.

    Ctrl-C reaches the command as well, which may need a while to end well. SIGTERM is passed on.
    """
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                status = process.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def append(log, row):
    """Add a row to the CSV, after a header where it is new."""
    log.parent.mkdir(parents=True, exist_ok=True)
    is_new = not log.exists()
    with open(log, "a", newline="") as f:
        rows = csv.writer(f)
        if is_new:
            rows.writerow(["step", "seconds", "peak_mib", "exit_status"])
        rows.writerow(row)


if __name__ == "__main__":
    sys.exit(main())
