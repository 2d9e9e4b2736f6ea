# Sourced by reproduce.sh and run_tests.sh: a virtual environment in .venv with the pinned requirements.
# PYTHON=python3.12 chooses the interpreter; LVD_VENV=DIR another folder.
LVD_VENV="${LVD_VENV:-.venv}"
setup_env() {
  local python="${PYTHON:-python3}" file wanted
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || {
    echo "error: Python 3.10 to 3.13 is needed, found $("$python" --version 2>&1 || true); set PYTHON=..." >&2; exit 2; }
  "$LVD_VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$LVD_VENV" || {
    echo "error: $python -m venv $LVD_VENV failed (on Debian: apt install python3-venv)" >&2; exit 2; }
  for file in "$@"; do # each file once, until it changes
    wanted="$(cksum < "$file")"
    [ "$(cat "$LVD_VENV/.$file" 2>/dev/null)" = "$wanted" ] && continue
    echo "installing $file into $LVD_VENV (once)"
    "$LVD_VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$file"
    echo "$wanted" > "$LVD_VENV/.$file"
  done
  PY="$LVD_VENV/bin/python"
}
