#!/usr/bin/env bash
# Everything a machine must have: uv, the pinned Python packages in .venv, this project, and FFCV where it can be built.
# Idempotent. FEEDRATE_SKIP_FFCV=1 goes without FFCV.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*"; }

# Run apt as root or through sudo; where neither is possible, name the command and fail.
apt_install() {
    if [ "$(id -u)" = 0 ]; then as_root=()
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo)
    else
        say "needs system packages; please run: sudo apt-get install -y --no-install-recommends $*"
        return 1
    fi
    command -v apt-get >/dev/null || { say "needs the packages $*, and this machine has no apt-get to install them with"; return 1; }
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

find_uv() {
    if command -v uv >/dev/null; then echo uv; return; fi
    if [ ! -x .venv-uv/bin/uv ]; then
        say "installing uv into .venv-uv" >&2
        python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv >&2
        python3 -m venv .venv-uv
        .venv-uv/bin/python -m pip install -q --disable-pip-version-check uv
    fi
    echo .venv-uv/bin/uv
}

install_ffcv() {
    local packages=(libopencv-dev libturbojpeg0-dev pkg-config g++)
    .venv/bin/python -c 'import ffcv' 2>/dev/null && return
    say "building FFCV (an optional loader's backend)"
    pkg-config --exists opencv4 libturbojpeg 2>/dev/null && command -v g++ >/dev/null || apt_install "${packages[@]}" || return 1
    # --no-deps: its metadata asks for opencv-python, which would overwrite the headless build
    "$uv" pip install -q --python .venv/bin/python --no-deps ffcv==1.0.2 || return 1
    .venv/bin/python -c 'import ffcv'
}

command -v python3 >/dev/null || apt_install python3 python3-venv
uv=$(find_uv)
[ -x .venv/bin/python ] || "$uv" venv -q --python '>=3.11,<3.14' .venv
say "installing the Python packages that requirements.lock pins"
"$uv" pip install -q --python .venv/bin/python --require-hashes -r requirements.lock
"$uv" pip install -q --python .venv/bin/python --no-deps -e .
if [ "${FEEDRATE_SKIP_FFCV:-}" = 1 ]; then
    say "FFCV is left out, as FEEDRATE_SKIP_FFCV asks"
elif ! install_ffcv; then
    say "FFCV could not be built here: going on without it (every other loader works)"
fi
