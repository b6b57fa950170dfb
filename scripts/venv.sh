#!/usr/bin/env bash
# Makes the virtual environment: venv.sh PYTHON FOLDER LOCK. Uses uv where it is installed, else the standard library.
set -euo pipefail
python=$1 folder=$2 lock=$3
if command -v uv >/dev/null 2>&1; then
    uv venv -q --allow-existing --python "$python" "$folder"
    uv pip install -q --python "$folder/bin/python" -r "$lock"
    uv pip install -q --python "$folder/bin/python" --no-deps --no-build-isolation -e .
    exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Atoll needs Python 3.11 or newer; found $("$python" --version). Say which: make PYTHON=python3.12 test" >&2; exit 2; }
"$python" -c 'import ensurepip' 2>/dev/null || {
    version=$("$python" -c 'import sys; print(f"{sys.version_info.major}.{sys.version_info.minor}")')
    echo "this Python has no ensurepip, so it cannot make a virtual environment. Install it: apt-get install python$version-venv" >&2; exit 2; }
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install -q --disable-pip-version-check -r "$lock"
"$folder/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
