#!/usr/bin/env bash
# Run the whole test suite, two files at a time, in a virtual environment of its own making. Arguments go to pytest (-n 8: eight).
set -euo pipefail
cd "$(dirname "$0")"
. tools/setup_env.sh
setup_env requirements.txt requirements-dev.txt
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the processes share the cores
exec "$PY" -m pytest -q -n 2 --dist loadfile "$@"
