#!/bin/sh
# The base model and the motion module; the flags of download.py may follow, such as --dry-run.
exec "${PYTHON:-python}" "$(dirname "$0")/download.py" --what base motion "$@"
