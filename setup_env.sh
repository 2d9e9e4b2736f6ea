# Sourced by reproduce.sh and run_tests.sh: a virtual environment in .venv with the pinned requirements.
# PYTHON=python3.12 chooses the interpreter; LVD_VENV=DIR another folder.
LVD_VENV="${LVD_VENV:-.venv}"
setup_env() {
  local python="${PYTHON:-python3}" stamp="$LVD_VENV/.installed" wanted
  "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || {
    echo "error: Python 3.10 to 3.13 is needed, found $("$python" --version 2>&1 || true); set PYTHON=..." >&2; exit 2; }
  wanted="$(cat "$@" | cksum)"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    [ -x "$LVD_VENV/bin/python" ] || "$python" -m venv "$LVD_VENV"
    echo "installing $* into $LVD_VENV (once)"
    local file; for file in "$@"; do "$LVD_VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$file"; done
    echo "$wanted" > "$stamp"
  fi
  PY="$LVD_VENV/bin/python"
}
