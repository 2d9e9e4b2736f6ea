#!/usr/bin/env bash
# Run the whole test suite in a virtual environment of its own making. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
. ./setup_env.sh
setup_env requirements.txt requirements-dev.txt
exec "$PY" -m pytest -q "$@"
