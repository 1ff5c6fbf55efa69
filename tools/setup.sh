#!/usr/bin/env bash
# Sets up everything `make demo` and `make test` need, and says what it does. Safe to run again.
#
#   tools/setup.sh demo            the venv with agent, collector and the prebuilt llama.cpp binding
#   tools/setup.sh demo all        the same with every engine that can be installed here
#   tools/setup.sh demo A,B        the same with these engines
#   tools/setup.sh test            the test tools, the servers that tests run against (Mosquitto, InfluxDB,
#                                  VictoriaMetrics, nginx), and the engines that come as small wheels
#   tools/setup.sh test all        the same with every engine, PyTorch and two that are compiled
#
# TORCH_INDEX_URL names another package index for PyTorch, such as that of its CPU builds.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:?demo or test}
engines=${2:-}
venv=.venv
python=${PYTHON:-python3}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fleetmark
llama_cpp_python=0.3.36

say() { printf '\033[1m[fleetmark]\033[0m %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
wrong() { say "$*"; exit 2; }

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
    # Its wheel would put urllib3-future in the place of urllib3, for everybody in this venv.
    URLLIB3_NO_OVERRIDE=1 PIP_NO_BINARY=urllib3-future \
        $venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e "$1" ||
        die "pip failed; is there a network? Nothing is half done: run this again"
    echo "$wanted" >>$stamp
}

# What is compiled for this very processor may only serve machines with the same features.
processor_features() {
    (uname -m; grep -m1 -iE '^(flags|features)' /proc/cpuinfo || true) | sha256sum | cut -c1-12
}

need_compiler() {
    command -v g++ >/dev/null && command -v make >/dev/null ||
        apt_install build-essential || die "a C++ compiler is needed for $1"
}

# Run a compiler in the background and say every minute that it still does.
compile() {
    local what=$1 pid started=$SECONDS
    shift
    "$@" &
    pid=$!
    trap 'kill $pid 2>/dev/null || true' EXIT
    while kill -0 $pid 2>/dev/null; do
        sleep 5
        if [ $(((SECONDS - started) % 60)) -lt 5 ]; then say "  compiling for $(((SECONDS - started) / 60)) min"; fi
    done
    wait $pid || die "$what did not compile; the message is above"
    trap - EXIT
}

install_llama_cpp() {
    if $venv/bin/python -c 'import llama_cpp' 2>/dev/null; then return; fi
    local wheels
    wheels=$cache/wheels/$(processor_features)
    if ! ls "$wheels"/llama_cpp_python-$llama_cpp_python-*.whl >/dev/null 2>&1; then
        need_compiler llama-cpp-python
        say "compiling llama-cpp-python $llama_cpp_python: once for this machine, 4 to 40 minutes"
        mkdir -p "$wheels"
        # pip's own cache may hold one that was compiled for another processor.
        compile llama-cpp-python env CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" \
            CMAKE_ARGS="-DLLAVA_BUILD=OFF ${CMAKE_ARGS:-}" \
            $venv/bin/pip wheel --quiet --disable-pip-version-check --no-cache-dir --no-deps \
            --wheel-dir "$wheels" "llama-cpp-python==$llama_cpp_python"
        say "kept in $wheels"
    fi
    $venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
        "$(ls "$wheels"/llama_cpp_python-$llama_cpp_python-*.whl | head -n1)"
}

# llama.cpp's server out of the sources that llama-cpp-python carries: the same llama.cpp, so that
# the two backends differ in nothing but how it is driven.
install_llama_server() {
    local kept work jobs
    kept=$cache/bin/$(processor_features)/llama-server-$llama_cpp_python
    if ! [ -x "$kept" ]; then
        need_compiler llama-server
        command -v cmake >/dev/null || apt_install cmake || die "cmake is needed for llama-server"
        say "compiling llama-server ($llama_cpp_python): once for this machine, 5 to 40 minutes"
        work=$(mktemp -d)
        $venv/bin/pip download --quiet --disable-pip-version-check --no-deps \
            --no-binary llama-cpp-python --dest "$work" "llama-cpp-python==$llama_cpp_python" ||
            die "the sources of llama-cpp-python cannot be fetched"
        tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work" --strip-components=1
        # Two of these keep it from npm and from fetching its web page.
        cmake -S "$work/vendor/llama.cpp" -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
            -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
            -DLLAMA_OPENSSL=OFF -DLLAMA_TOOLS_INSTALL=OFF ${CMAKE_ARGS:-} >"$work/configure.log" 2>&1 ||
            { tail -n 20 "$work/configure.log" >&2; die "llama-server cannot be configured"; }
        jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
        compile llama-server cmake --build "$work/build" --target llama-server -j "$jobs" >/dev/null
        mkdir -p "$(dirname "$kept")"
        strip -o "$kept.part" "$work/build/bin/llama-server"
        mv "$kept.part" "$kept"
        rm -rf "$work"
        say "kept as $kept"
    fi
    # Beside the agent's Python, where its backend looks first.
    install -m 755 "$kept" $venv/bin/llama-server
}

# The default index has PyTorch with CUDA for x86-64: several gigabytes that no CPU needs.
install_torch() {
    if $venv/bin/python -c 'import torch' 2>/dev/null; then return; fi
    say "installing PyTorch; where this brings CUDA along, set TORCH_INDEX_URL to its CPU builds"
    $venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
        ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch || die "PyTorch cannot be installed"
}

# Print the extras of pyproject.toml that bring these engines.
extras_of() {
    local backend
    for backend in ${1//,/ }; do
        case $backend in
        xllamacpp | langchain | ollama | transformers) echo "$backend" ;;
        ctransformers)
            # Its wheel says that it is for any machine, and is not.
            if [ "$(uname -m)" = x86_64 ]; then echo ctransformers; else
                say "ctransformers has no library for $(uname -m): left out"
            fi
            ;;
        llama_cpp | llama_server | llamafile | openai) ;;
        *) wrong "no backend is called '$backend'; there are: $all_engines, llamafile, openai" ;;
        esac
    done
}

has() { case ",$engines," in *",$1,"*) return 0 ;; *) return 1 ;; esac }

there() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

# Install a server that tests start themselves: package, program, service.
install_server() {
    if there "$2"; then return; fi
    apt_install "$1" || die "the integration tests need $2: install it and run this again"
    # Debian starts it at once, where nobody asked for it.
    as_root systemctl disable --now "$3" >/dev/null 2>&1 || true
}

install_servers() {
    install_server mosquitto mosquitto mosquitto
    install_server influxdb influxd influxdb
    install_server nginx-light nginx nginx
    install_server victoria-metrics victoria-metrics victoria-metrics
    # Part of the health check that deploy/compose.yaml makes.
    there mosquitto_pub || apt_install mosquitto-clients ||
        die "the integration tests need mosquitto_pub: install it and run this again"
    there openssl || apt_install openssl ||
        die "the integration tests need openssl: install it and run this again"
    # A device that `fleetmark fleet install` comes to; nobody else shall come in by it.
    if ! there sshd; then
        install_server openssh-server sshd ssh
        as_root systemctl disable --now ssh.socket >/dev/null 2>&1 || true
    fi
    there sudo || apt_install sudo || die "the integration tests need sudo: install it and run this again"
}

all_engines=xllamacpp,llama_cpp,llama_server,ollama,ctransformers,langchain,transformers
case $what in
demo) sets=agent,collector engines=${engines:-xllamacpp} ;;
test) sets=agent,collector,grafana,dev engines=${engines:-xllamacpp,ollama,ctransformers,langchain} ;;
*) wrong "demo or test, not '$what'" ;;
esac
if [ "$engines" = all ]; then engines=$all_engines; fi
extras=$(extras_of "$engines" | paste -sd, -)

check_python
make_venv
if has transformers; then install_torch; fi
pip_install ".[$sets${extras:+,$extras}]"
if [ "$what" = test ]; then install_servers; fi
if has llama_cpp; then install_llama_cpp; fi
if has llama_server; then install_llama_server; fi
