#!/usr/bin/env bash
# Sets up everything `make demo` and `make test` need, and says what it does. Safe to run again.
#
#   tools/setup.sh demo          the venv with agent, collector and the prebuilt llama.cpp binding
#   tools/setup.sh test          the same with the test tools, and the Mosquitto broker
#   tools/setup.sh test all      the same with llama-cpp-python compiled for this machine
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:?demo or test}
engines=${2:-wheels}
venv=.venv
python=${PYTHON:-python3}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fleetmark
llama_cpp_python=0.3.36

say() { printf '\033[1m[fleetmark]\033[0m %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Run as root, by sudo where we are not; fails where neither is possible.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

apt_updated=
apt_install() {
    command -v apt-get >/dev/null || return 1
    say "installing $* with apt"
    if [ -z "$apt_updated" ]; then as_root apt-get update -qq || return 1; apt_updated=1; fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

check_python() {
    command -v "$python" >/dev/null || apt_install python3 || die "Python 3.11 or newer is needed"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed; this is $("$python" --version). Set PYTHON=/path/to/python3.11"
}

make_venv() {
    [ -x $venv/bin/python ] && $venv/bin/python -c 'import pip' 2>/dev/null && return
    say "making a virtual environment in $venv"
    if ! "$python" -m venv $venv 2>/dev/null; then
        rm -rf $venv
        apt_install python3-venv || die "install python3-venv and run this again"
        "$python" -m venv $venv
    fi
}

# Install an extra set once; again only when what is asked for has changed.
pip_install() {
    local stamp wanted
    stamp=$venv/.fleetmark-installed
    wanted="$* $(cat pyproject.toml constraints.txt | sha256sum)"
    if [ -f $stamp ] && grep -qxF "$wanted" $stamp; then return; fi
    say "installing $* into $venv (first time: a minute or two)"
    $venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e "$1" ||
        die "pip failed; is there a network? Nothing is half done: run this again"
    echo "$wanted" >>$stamp
}

# Compiled for this very processor, so its wheel may only serve machines with the same features.
llama_cpp_wheels() {
    local features
    features=$( (uname -m; grep -m1 -iE '^(flags|features)' /proc/cpuinfo || true) | sha256sum | cut -c1-12)
    echo "$cache/wheels/$features"
}

install_llama_cpp() {
    if $venv/bin/python -c 'import llama_cpp' 2>/dev/null; then return; fi
    local wheels
    wheels=$(llama_cpp_wheels)
    if ! ls "$wheels"/llama_cpp_python-$llama_cpp_python-*.whl >/dev/null 2>&1; then
        command -v g++ >/dev/null && command -v make >/dev/null ||
            apt_install build-essential || die "a C++ compiler is needed for llama-cpp-python"
        say "compiling llama-cpp-python $llama_cpp_python: once for this machine, 4 to 40 minutes"
        mkdir -p "$wheels"
        # pip's own cache may hold one that was compiled for another processor.
        CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) CMAKE_ARGS="-DLLAVA_BUILD=OFF ${CMAKE_ARGS:-}" \
            $venv/bin/pip wheel --quiet --disable-pip-version-check --no-cache-dir --no-deps \
            --wheel-dir "$wheels" "llama-cpp-python==$llama_cpp_python" &
        local pid=$! started=$SECONDS
        trap 'kill $pid 2>/dev/null || true' EXIT
        while kill -0 $pid 2>/dev/null; do
            sleep 5
            if [ $(((SECONDS - started) % 60)) -lt 5 ]; then say "  compiling for $(((SECONDS - started) / 60)) min"; fi
        done
        wait $pid || die "llama-cpp-python did not compile; the message is above"
        trap - EXIT
        say "kept in $wheels"
    fi
    $venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
        "$(ls "$wheels"/llama_cpp_python-$llama_cpp_python-*.whl | head -n1)"
}

install_mosquitto() {
    if command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ]; then return; fi
    apt_install mosquitto ||
        die "the integration tests need the Mosquitto broker: install it and run this again"
    # Debian starts it on port 1883, where nobody asked for a broker; tests start their own.
    as_root systemctl disable --now mosquitto >/dev/null 2>&1 || true
}

check_python
make_venv
case $what in
demo) pip_install ".[agent,collector,xllamacpp]" ;;
test)
    pip_install ".[agent,collector,xllamacpp,dev]"
    install_mosquitto
    ;;
*) die "demo or test, not '$what'" ;;
esac
if [ "$engines" = all ]; then install_llama_cpp; fi
