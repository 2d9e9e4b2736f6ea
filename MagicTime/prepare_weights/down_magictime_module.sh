#!/bin/sh
# MagicTime's three adapters; the flags of download.py may follow, such as --dry-run.
exec "${PYTHON:-python}" "$(dirname "$0")/download.py" --what magic "$@"
