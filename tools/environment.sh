#!/bin/sh
# Make .venv from requirements.lock with uv, prepare the rehearsal's model, and skip what is already so.
set -eu
cd "$(dirname "$0")/.."
UV_VERSION=0.13.9
PYTHON=${PYTHON:-python3}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/gpurunbook
stamp=.venv/.lock
want=$({ cat requirements.lock pyproject.toml tools/environment.sh; "$PYTHON" -V; } 2>&1 | sha256sum | cut -d' ' -f1)

fail() {
    printf 'error: %s\n look: %s\n next: %s\n' "$1" "$2" "$3" >&2
    exit 1
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is needed" "$(command -v "$PYTHON" || echo "no $PYTHON on the PATH")" "install it, or: make PYTHON=/path/to/python3.11"

if [ "$(cat $stamp 2>/dev/null)" != "$want" ]; then
    if command -v uv >/dev/null; then
        uv=uv
    else
        uv=$CACHE/uv-$UV_VERSION/bin/uv
        if [ ! -x "$uv" ]; then
            echo "environment: fetching uv $UV_VERSION (25 MB)" >&2
            "$PYTHON" -m venv "$CACHE/uv-$UV_VERSION" ||
                fail "a virtual environment cannot be made" "the lines above" "install python3-venv, or uv itself"
            "$CACHE/uv-$UV_VERSION/bin/pip" install --quiet --disable-pip-version-check "uv==$UV_VERSION"
        fi
    fi
    echo "environment: $(grep -c '==' requirements.lock) locked packages into .venv; from nothing about 3 GB to fetch and 6 GB on disk," >&2
    echo "environment: (most of it torch and its CUDA libraries), 1 minute on a fast line, 5 at 80 Mbit/s; kept for later clones" >&2
    "$uv" venv --quiet --allow-existing --python "$PYTHON" .venv
    # Compiled once here: a process that may not write bytecode, such as a pod's, would compile torch again each time.
    VIRTUAL_ENV=.venv "$uv" pip sync --compile-bytecode --require-hashes requirements.lock
    VIRTUAL_ENV=.venv "$uv" pip install --quiet --no-deps --no-build-isolation --editable .
    echo "$want" >$stamp
fi
.venv/bin/python -m compileall -q gpurunbook
.venv/bin/python -m gpurunbook.targets.rehearsal.weights >/dev/null
echo "environment: ready" >&2
