#!/bin/sh
# What detectors of size base start from; the flags of download.py may follow, such as --dry-run.
exec "${PYTHON:-python}" "$(dirname "$0")/download.py" --what videomae "$@"
