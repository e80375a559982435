#!/usr/bin/env bash
# Everything a machine must have: uv, the pinned Python packages in .venv, this project, and, where they can be had, DALI
# and FFCV. Idempotent. FEEDRATE_SKIP_DALI=1 goes without DALI, FEEDRATE_SKIP_FFCV=1 without FFCV. What apt, the compiler,
# the installation of uv and a DALI that cannot be installed print goes to .venv-setup.log.
set -euo pipefail
cd "$(dirname "$0")/.."
log=.venv-setup.log
: >"$log"

say() { printf '%s\n' "$*" >&2; }

# Install Debian packages as root or through sudo; where neither is possible, name the command and fail.
apt_install() {
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        say "needs the packages $*, and this machine has no apt-get to install them with"
        return 1
    elif [ "$(id -u)" != 0 ]; then
        if ! { command -v sudo && sudo -n true; } >>"$log" 2>&1; then
            say "needs system packages; please run: sudo apt-get install -y --no-install-recommends $*"
            return 1
        fi
        as_root=(sudo)
    fi
    say "installing system packages: $*"
    "${as_root[@]}" apt-get update -qq >>"$log" 2>&1 &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1 ||
        { say "apt-get failed: see $log"; return 1; }
}

# Print the path of uv, installing it beside the project if there is none. In $(…) bash forgets -e: each step is asked.
find_uv() {
    if command -v uv; then return; fi
    if [ ! -x .venv-uv/bin/uv ]; then
        say "installing uv into .venv-uv"
        python3 -c 'import ensurepip' 2>>"$log" || apt_install python3-venv || return 1
        python3 -m venv .venv-uv >>"$log" 2>&1 || { say "python3 -m venv failed: see $log"; return 1; }
        .venv-uv/bin/python -m pip install -q --disable-pip-version-check uv >>"$log" 2>&1 ||
            { say "pip could not install uv: see $log, or put uv on the PATH"; return 1; }
    fi
    echo .venv-uv/bin/uv
}

install_dali() {
    say "installing DALI (the backend of an optional loader)"
    "$uv" pip install -q --python .venv/bin/python --require-hashes -r requirements-dali.lock >>"$log" 2>&1 &&
        .venv/bin/python -c 'import nvidia.dali' >>"$log" 2>&1
}

has_ffcv() { .venv/bin/python -c 'import ffcv' >>"$log" 2>&1; }

install_ffcv() {
    local missing=()
    pkg-config --exists opencv4 libturbojpeg 2>>"$log" || missing+=(libopencv-dev libturbojpeg0-dev pkg-config)
    command -v g++ >>"$log" || missing+=(g++)
    .venv/bin/python -c 'import pathlib, sysconfig; assert pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()' \
        2>>"$log" || missing+=(python3-dev)
    if [ ${#missing[@]} -gt 0 ]; then apt_install "${missing[@]}" || return 1; fi
    say "building FFCV (the backend of an optional loader)"
    # --no-deps: its metadata asks for opencv-python, which would overwrite the headless build
    "$uv" pip install -q --python .venv/bin/python --no-deps ffcv==1.0.2 >>"$log" 2>&1 && has_ffcv
}

build_kernel() { .venv/bin/python -m loaders.native.library >>"$log" 2>&1; }

install_kernel() {
    local missing=()
    command -v "${CC:-cc}" >>"$log" || missing+=(gcc libc6-dev)
    printf '#include <stdio.h>\n#include <jpeglib.h>\n' | "${CC:-cc}" -E - >/dev/null 2>>"$log" || missing+=(libjpeg-dev)
    if [ ${#missing[@]} -eq 0 ]; then return 1; fi
    apt_install "${missing[@]}" && build_kernel
}

# Where Python may not write bytecode, each start would compile anew what it imports: half of what a short command takes.
# Files for a newer Python cannot be compiled, and nobody imports them.
compile_packages() {
    say "compiling the packages, since PYTHONDONTWRITEBYTECODE keeps Python from doing so as it goes"
    .venv/bin/python -m compileall -q -j 0 .venv/lib >>"$log" 2>&1 || true
}

command -v python3 >/dev/null || apt_install python3 python3-venv
uv=$(find_uv) || exit 1
[ -x .venv/bin/python ] || "$uv" venv -q --python '>=3.11,<3.14' .venv
say "installing the Python packages that requirements.lock pins"
"$uv" pip install -q --python .venv/bin/python --require-hashes -r requirements.lock
"$uv" pip install -q --python .venv/bin/python --no-deps -e .
if [ "${FEEDRATE_SKIP_DALI:-}" = 1 ]; then
    say "DALI is left out, as FEEDRATE_SKIP_DALI asks"
elif ! install_dali; then
    say "DALI could not be installed here (see $log): going on without it, all other loaders work"
fi
if has_ffcv; then
    say "FFCV is there"
elif [ "${FEEDRATE_SKIP_FFCV:-}" = 1 ]; then
    say "FFCV is left out, as FEEDRATE_SKIP_FFCV asks"
elif ! install_ffcv; then
    say "FFCV could not be built here (see $log): going on without it, all other loaders work"
fi
if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then compile_packages; fi
if [ "${FEEDRATE_NATIVE:-}" = 0 ]; then
    say "the native kernel is left out, as FEEDRATE_NATIVE asks"
elif build_kernel || install_kernel; then
    say "the native kernel is ready"
else
    say "the native kernel cannot be used here (see $log): going on without it, with the same pixels, more slowly"
fi
