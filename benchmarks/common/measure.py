"""Run a command and append its wall seconds and peak memory (largest single process) to a CSV.

python benchmarks/common/measure.py --log steps.csv --name sample -- python
MagicTime/inference_magictime.py ...
"""

import argparse
import csv
import resource
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
    try:
        status = subprocess.run(command).returncode
    except KeyboardInterrupt:
        status = 130
    seconds, peak = (
        time.time() - began,
        resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    )
    log = Path(args.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    new = not log.exists()
    with open(log, "a", newline="") as f:
        rows = csv.writer(f)
        if new:
            rows.writerow(["step", "seconds", "peak_mib", "exit_status"])
        rows.writerow([args.name, f"{seconds:.1f}", f"{peak:.0f}", status])
    return status


if __name__ == "__main__":
    sys.exit(main())
