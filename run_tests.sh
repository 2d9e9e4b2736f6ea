#!/usr/bin/env bash
# Check the style with ruff, then run the whole test suite, two files at a time, in a virtual environment of its own
# making. Arguments go to pytest (-n 8: eight files at a time).
set -euo pipefail
cd "$(dirname "$0")"
. tools/setup_env.sh
setup_env requirements.txt requirements-serve.txt requirements-app.txt requirements-data.txt requirements-dev.txt

"$PY" -m ruff check --quiet . || {
  echo "error: ruff found the lines above; this mends what it can: $PY -m ruff check --fix ." >&2; exit 1; }
"$PY" -m ruff format --quiet --check . || {
  echo "error: not formatted; this mends it: $PY -m ruff format ." >&2; exit 1; }

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the processes share the cores
# tests/conftest.py has put the files in order: the long ones first
exec "$PY" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
