#!/usr/bin/env bash
# Tries agent and centre as services of a booted Debian: what only a real systemd can show.
#
#   sudo tools/try_systemd.sh [--suite bookworm] [--dir DIR] [--keep] [TRIAL...]
#
# It makes a Debian (debootstrap), boots it with its own systemd in a container (systemd-nspawn) that has no
# network but its loopback, and runs the trials of tools/systemd_trials in it, in this order unless told
# otherwise: agent, centre, job, backup, package. Each says what it looks at; the first thing that is not as
# it must be ends everything with exit code 1. `job` and `backup` need what `centre` sets up.
#
# For maintainers, not part of `make test`: half an hour, 3 GB, a network, root. Needs `apt install debootstrap
# systemd-container`; for `package` packages in dist/ (make deb).
#
# The kernel is this machine's: a reboot is one of the container's systemd and all its processes, not of a
# kernel, and what a power cut does to a disk is not seen here.
#
# --keep leaves DIR for the next time, which begins with a fresh copy of the Debian in it; else nothing is left.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=bookworm dir=/var/tmp/fleetmark-systemd keep='' trials=()
say() { printf '\033[1m[systemd]\033[0m %s\n' "$*" >&2; }
wrong() { say "$*"; exit 2; }
die() { say "FAILED: $*"; exit 1; }
while [ $# -gt 0 ]; do
    case $1 in
    --suite | --dir)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    --keep) keep=yes ;;
    agent | centre | job | backup | package) trials+=("$1") ;;
    *) wrong "unknown option or trial $1; the top of $0 lists them" ;;
    esac
    shift
done
[ ${#trials[@]} -gt 0 ] || trials=(agent centre job backup package)
[ "$(id -u)" -eq 0 ] || wrong "run this as root (sudo): it makes and boots another Debian"
for program in debootstrap systemd-nspawn nsenter; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
        wrong "$program is missing: apt install debootstrap systemd-container"
done

base=$dir/$suite root=$dir/$suite-tried nspawn=
clean() {
    if [ -n "$nspawn" ]; then
        # nspawn takes its container down with it.
        kill "$nspawn" 2>/dev/null || true
        wait "$nspawn" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$root"
    [ -n "$keep" ] || rm -rf --one-file-system "$base" "$dir/wheels-$suite"
    rmdir "$dir" 2>/dev/null || true
}
trap clean EXIT
trap 'exit 1' INT TERM

mkdir -p "$dir"
if [ ! -e "$base/.complete" ]; then
    say "Debian $suite in $base"
    rm -rf --one-file-system "$base"
    nice -n 10 debootstrap --variant=minbase \
        --include=ca-certificates,dbus,influxdb,libgomp1,mosquitto,openssl,procps,python3,python3-venv,sudo,systemd,systemd-sysv \
        "$suite" "$base" >"$dir/debootstrap.log" 2>&1 || die "debootstrap: see $dir/debootstrap.log"
    touch "$base/.complete"
fi

# Everything that pip will want, fetched while there is a network; in there it has none.
wheels=$dir/wheels-$suite
wanted=$(cat pyproject.toml constraints.txt | sha256sum)
if [ "$(cat "$wheels/.of" 2>/dev/null)" != "$wanted" ]; then
    say "wheels in $wheels"
    rm -rf "$wheels"
    mkdir -p "$wheels" "$base/root/fetch"
    cp -r pyproject.toml constraints.txt README.md protocol agent collector "$base/root/fetch"
    cp -L /etc/resolv.conf "$base/etc/resolv.conf"
    cp -L /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/ca-certificates.crt"
    unshare --mount --propagation private sh -c '
        mount --bind "$1" "$2/mnt" && mount -t proc proc "$2/proc" &&
        exec chroot "$2" env -i PATH=/usr/bin:/bin HOME=/root ${3:+PIP_INDEX_URL="$3"} sh -ec "
            python3 -m venv /root/fetch/venv && cd /root/fetch
            venv/bin/pip wheel --quiet -w /mnt -c constraints.txt \".[agent,xllamacpp,collector]\" hatchling"' \
        sh "$wheels" "$base" "${PIP_INDEX_URL:-}" || die "pip wheel"
    rm -rf "$base/root/fetch" "$wheels"/fleetmark-*.whl
    echo "$wanted" >"$wheels/.of"
fi

say "a fresh copy of it, with this checkout, boots"
rm -rf --one-file-system "$root"
cp -a --reflink=auto "$base" "$root"
mkdir -p "$root/root/fleetmark"
git ls-files -co --exclude-standard -z | while IFS= read -r -d '' file; do
    [ ! -e "$file" ] || printf '%s\0' "$file"
done | tar -c --null -T - | tar -x -C "$root/root/fleetmark"
[ ! -d dist ] || cp -r dist "$root/root/dist"
echo board >"$root/etc/hostname"
printf '127.0.0.1 localhost board\n127.0.0.1 centre.test\n' >"$root/etc/hosts"
rm -f "$root/etc/machine-id" && touch "$root/etc/machine-id"
model=$(find "${XDG_CACHE_HOME:-$HOME/.cache}/fleetmark/models" -name 'SmolLM2*Q4_1-??????????*.gguf' ! -name '*-to-*' 2>/dev/null | head -n 1)
[ -n "$model" ] || wrong "no model: tools/setup.sh demo && .venv/bin/fleetmark demo fetches it"
# Where the agent's user can read it.
install -m 644 "$model" "$root/srv/smollm2-135m.gguf"

boot() {
    systemd-nspawn --quiet --boot --directory "$root" --machine fleetmark-tried --private-network --private-users=no \
        --register=no --keep-unit --bind-ro="$wheels:/root/wheels" >>"$dir/console.log" 2>&1 &
    nspawn=$!
}

# Runs a command in there, in the container's namespaces and control groups.
inside() {
    local init
    init=$(pgrep -P "$nspawn" -x systemd) || return 1
    nsenter --target "$init" --mount --uts --ipc --net --pid --cgroup env -i HOME=/root LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
booted() {
    local left=90
    boot
    until case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) true ;; *) false ;; esac; do
        left=$((left - 1))
        kill -0 "$nspawn" || { tail "$dir/console.log" >&2; die "the container has ended"; }
        [ "$left" -gt 0 ] || die "it does not come up: $dir/console.log"
        sleep 1
    done
}
booted
say "$(inside sh -c '. /etc/os-release; echo "$PRETTY_NAME, $(systemctl --version | head -n 1)"')"

for trial in "${trials[@]}"; do
    say "trial: $trial"
    # A trial that wants a reboot ends with 75 and is told where it was.
    part=1
    while :; do
        code=0
        inside bash /root/fleetmark/tools/systemd_trials/"$trial".sh "$part" || code=$?
        [ "$code" -eq 75 ] || break
        say "reboot"
        inside systemctl reboot || true
        # With this code nspawn asks to be started again.
        code=0
        wait "$nspawn" || code=$?
        [ "$code" -eq 133 ] || die "the reboot ended with $code"
        booted
        part=$((part + 1))
    done
    [ "$code" -eq 0 ] || die "$trial: exit code $code"
done
say "all of it worked: ${trials[*]}"
