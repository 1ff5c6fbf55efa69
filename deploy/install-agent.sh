#!/bin/sh
# Installs the agent as a service on Debian, Ubuntu or Raspberry Pi OS, and brings it up to date.
# Safe to run again. docs/install.md tells the rest.
set -eu

usage() {
    cat <<'USAGE'
sudo deploy/install-agent.sh [options]

  --with A,B       engines: xllamacpp (default), llama-cpp, ollama, ctransformers, langchain,
                   transformers, or none
  --config FILE    settings to begin with; those that are there already stay
  --kit DIR        what `fleetmark enroll` made: settings as by --config, and an identity
  --offline DIR    take everything from this directory, ask no network
  --download DIR   only fetch what --offline needs, for machines like this one
  --rollback       back to the version before
  --uninstall      remove service and program; settings and records stay
  --purge          remove settings, records and models, too
  --no-start       do not start the service

Exit codes: 0 done, 1 it failed (what ran before still runs), 2 wrong options or machine.
USAGE
}

# dpkg --root names another file tree.
root=${DPKG_ROOT:-}
home=/opt/fleetmark-agent
state=/var/lib/fleetmark-agent
settings=/etc/fleetmark/agent.toml
unit=/etc/systemd/system/fleetmark-agent.service
command=/usr/local/bin/fleetmark-agent
users=/usr/lib/sysusers.d/fleetmark-agent.conf
package=/usr/lib/fleetmark-agent
needed_kib=1500000
for each in home state settings unit command users package; do
    eval "$each=\$root\$$each"
done
python=${PYTHON:-python3}
# Packages of somebody else's are none of ours.
unset PYTHONPATH PYTHONHOME

say() { printf '[fleetmark] %s\n' "$*" >&2; }
wrong() { say "$*"; exit 2; }
die() { say "$*"; exit 1; }

with='' config='' kit='' offline='' download='' action=install start=yes
while [ $# -gt 0 ]; do
    case $1 in
    --with | --config | --kit | --offline | --download)
        [ $# -ge 2 ] || wrong "$1 needs a value; --help lists the options"
        eval "${1#--}=\$2"
        shift
        ;;
    --rollback) action=rollback ;;
    --uninstall) action=uninstall ;;
    --purge) action=purge ;;
    --no-start) start=no ;;
    -h | --help) usage; exit 0 ;;
    *) wrong "unknown option $1; --help lists the options" ;;
    esac
    shift
done
[ -z "$download" ] || action=download

here=$(cd "$(dirname "$0")/.." && pwd -P)
# Part of the Debian package: service, command and the user's name are dpkg's, the wheels are there.
packaged=no
if [ "$here" = "$(cd "$package" 2>/dev/null && pwd -P)" ]; then
    packaged=yes
    with=${with:-$(cat "$here/engines")} offline=${offline:-$here/wheels}
fi
case ${with:=xllamacpp} in
none) extras=agent ;;
*)
    for engine in $(printf %s "$with" | tr , ' '); do
        case $engine in
        xllamacpp | llama-cpp | ollama | ctransformers | langchain | transformers) ;;
        *) wrong "--with: unknown engine $engine (known: xllamacpp, llama-cpp, ollama, ctransformers, langchain, transformers, none)" ;;
        esac
    done
    extras=agent,$with
    ;;
esac
# Said from where the script was called.
from_here() { case $1 in '' | /*) printf %s "$1" ;; *) printf %s "$PWD/$1" ;; esac; }
kit=$(from_here "$kit") config=$(from_here "${config:-${kit:+$kit/agent.toml}}")
offline=$(from_here "$offline") download=$(from_here "$download")
[ -z "$config" ] || [ -r "$config" ] || wrong "--config: $config cannot be read"
[ -z "$offline" ] || [ -d "$offline" ] || wrong "--offline: $offline is no directory"
cd "$here"
[ -f constraints.txt ] || wrong "run this script where it is, in a checkout of fleetmark"

check_machine() {
    case $(uname -m) in
    x86_64 | aarch64) ;;
    *) wrong "$(uname -m) is not supported: fleetmark needs a 64-bit x86 or ARM system (on a Raspberry Pi: the 64-bit Raspberry Pi OS)" ;;
    esac
    command -v "$python" >/dev/null || wrong "$python is missing: apt install python3 python3-venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        wrong "Python 3.11 or newer is needed; this is $("$python" --version). PYTHON=/path/to/python3.11 chooses another"
    # A Raspberry Pi's 32-bit system runs on a 64-bit kernel, whose name uname tells.
    "$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)' ||
        wrong "this system is a 32-bit one on a 64-bit kernel, which is not supported: install the 64-bit Raspberry Pi OS"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || wrong "python3-venv is missing: apt install python3-venv"
    [ -z "$offline" ] || check_wheels
}

check_wheels() {
    wheel=$(find "$offline" -maxdepth 1 -name 'fleetmark-*.whl' | head -n 1)
    [ -n "$wheel" ] || wrong "--offline: no wheel of fleetmark in $offline; make one by --download"
    this=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fitting=$(find "$offline" -name '*-cp3*-cp3*.whl' | sed -n 's/.*-cp3\([0-9]*\)-cp3.*/3.\1/p' | sort -uV | paste -sd' ')
    case " $fitting " in
    '  ' | *" $this "*) ;;
    *) wrong "this is Python $this; the wheels in $offline are for Python $(printf %s "$fitting" | sed 's/ /, /g'). PYTHON=/path/to/python3 chooses another" ;;
    esac
}

be_root() {
    [ "$(id -u)" -eq 0 ] || wrong "run this as root (sudo)"
    command -v systemctl >/dev/null || wrong "systemd is missing; docs/install.md tells how to run the agent without it"
    [ "$packaged" = yes ] || [ ! -e "$package" ] ||
        wrong "the Debian package is installed: apt install a newer one, or apt remove fleetmark-agent before this script"
}

put_into() { # VENV WHAT
    if [ -n "$offline" ]; then
        # The machine's own pip.conf may name places in the network.
        export PIP_CONFIG_FILE=/dev/null
        set -- "$1" "$2" --no-index --find-links "$offline"
    fi
    venv=$1 what=$2
    shift 2
    "$venv/bin/pip" install --disable-pip-version-check --no-cache-dir \
        -c constraints.txt "$what" "$@"
}

not_made() { # WHAT IT SAID
    printf '%s\n' "$2" | grep -v '^INFO\|^Processing\|^Collecting\|^Looking' | tail -n 20 >&2
    # Python's own venv keeps to itself what it stumbled over.
    case "$2 $(df -Pk "$opt" | awk 'NR == 2 && $4 < 4096 { print "No space left" }')" in *'No space left'* | *'Disk quota exceeded'*)
        die "the disk is full (df -h $opt /tmp shows where); nothing was changed"
        ;;
    esac
    # Its words where nothing pins that package, and where constraints.txt does.
    lacking=$(printf '%s\n' "$2" | sed -n -e 's/^ERROR: No matching distribution found for \([A-Za-z0-9._-]*\).*/\1/p' \
        -e 's/^ *The user requested (constraint) \(.*\)/\1/p' | sort -u | paste -sd' ')
    [ -z "$offline" ] || [ -z "$lacking" ] ||
        wrong "--offline: $offline has no wheel of $lacking for Python $this on $(uname -m); --download makes it on a machine like this one. Nothing was changed"
    die "$1 failed; nothing was changed"
}

# Whole or not at all, whatever becomes of the disk.
place() { # MODE FROM TO [GROUP]
    { mkdir -p "$(dirname "$3")" && cp "$2" "$3.new" && chmod "$1" "$3.new" &&
        { [ -z "${4:-}" ] || chgrp "$4" "$3.new"; } && mv -T "$3.new" "$3"; } && return
    rm -f "$3.new"
    die "$3 cannot be written; what ran before still runs"
}

point() { # LINK TARGET
    ln -sfn "$2" "$1.new" && mv -T "$1.new" "$1"
}

running() { systemctl is-active --quiet fleetmark-agent.service; }

restart() {
    # Not so in an image that is made in a chroot.
    if [ -d "$root/run/systemd/system" ]; then systemctl daemon-reload; else start=no; fi
    # Who has turned the service off keeps it off.
    if [ -n "${before:-}" ] && ! systemctl is-enabled --quiet fleetmark-agent.service; then
        say "fleetmark-agent.service is disabled, and stays so"
        return 0
    fi
    systemctl enable --quiet fleetmark-agent.service
    [ "$start" = yes ] || return 0
    # Waits until the agent says that it is ready.
    systemctl restart fleetmark-agent.service 2>/dev/null && running
}

fetch() {
    check_machine
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m venv "$work/venv"
    mkdir -p "$download"
    say "fetching $extras into $download"
    # Wheels, also of what comes as source: the other machine needs no compiler.
    "$work/venv/bin/pip" --quiet --disable-pip-version-check wheel \
        --wheel-dir "$download" -c constraints.txt ".[$extras]" ||
        die "not all could be fetched; run this again"
    say "done; on the other machine: deploy/install-agent.sh --with $with --offline DIR"
}

install_agent() {
    check_machine
    be_root
    # What is installed has three times the size of its wheels.
    [ -z "$offline" ] || needed_kib=$(($(du -sk "$offline" | cut -f 1) * 4 + 50000))
    opt=$root/opt
    [ -d "$opt" ] || mkdir -p "$opt"
    free_kib=$(df -Pk "$opt" | awk 'NR == 2 { print $4 }')
    [ "$free_kib" -ge "$needed_kib" ] ||
        die "$opt: $((free_kib / 1024)) MiB free, $((needed_kib / 1024)) MiB needed; nothing was changed"
    new=$home/$(date -u +%Y%m%d-%H%M%S)-$$
    say "fleetmark agent ($extras) in $new"
    # A version that is half there is never the current one.
    trap 'rm -rf "$new" "$home/current.new"' EXIT
    said=$(mkdir -p "$home" 2>&1 && "$python" -m venv "$new" 2>&1) || not_made "python3 -m venv" "$said"
    if [ -n "$offline" ]; then
        said=$(put_into "$new" "${wheel}[$extras]" 2>&1) || not_made pip "$said"
    else
        said=$(put_into "$new" ".[$extras]" 2>&1) || not_made "pip (is there a network?)" "$said"
    fi
    "$new/bin/fleetmark-agent" --version >/dev/null || die "the new version does not start; nothing was changed"

    say "user, settings and service"
    if [ "$packaged" = yes ]; then
        # The package has its own.
        rm -f "$unit" "$command"
    else
        place 644 deploy/systemd/fleetmark-agent.sysusers.conf "$users"
        place 644 deploy/systemd/fleetmark-agent.service "$unit"
        place 755 deploy/systemd/fleetmark-agent "$command"
    fi
    systemd-sysusers ${root:+"--root=$root"} fleetmark-agent.conf
    for file in ${kit:+agent-ca.crt agent-password agent.crt agent.key}; do
        [ ! -e "$kit/$file" ] || place 640 "$kit/$file" "${settings%/*}/$file" fleetmark-agent
    done
    # What the operator has set stays.
    [ -e "$settings" ] || place 640 "${config:-deploy/systemd/agent.toml}" "$settings" fleetmark-agent
    [ -z "$config" ] || cmp -s "$config" "$settings" || say "$settings stays as it is; $config differs: compare them, and change what is to change"

    before=$(readlink "$home/current" || true)
    point "$home/current" "$new" || die "$home/current cannot be written; what ran before still runs"
    trap - EXIT
    if restart; then
        [ -z "$before" ] || point "$home/previous" "$before"
        forget_old
        say "done: $("$home/current/bin/fleetmark-agent" --version). See \`fleetmark-agent doctor\` and \`fleetmark-agent status\`"
        return
    fi
    journalctl -u fleetmark-agent.service -n 5 --no-pager -o cat >&2 || true
    if [ -n "$before" ] && [ -d "$before" ]; then
        ln -sfn "$before" "$home/current"
        rm -rf "$new"
        restart || die "neither the new version nor the one before starts: the last words are above. Correct $settings, then: systemctl restart fleetmark-agent"
        die "the new version does not start (its last words are above); the one before runs again"
    fi
    die "installed, but the service does not start: its last words are above. Correct $settings, then: systemctl restart fleetmark-agent"
}

forget_old() {
    for version in "$home"/2*; do
        case $version in "$(readlink "$home/current")" | "$(readlink "$home/previous" || true)") ;; *) rm -rf "$version" ;; esac
    done
}

rollback() {
    be_root
    [ -d "$home/previous/" ] || wrong "there is no version before this one"
    now=$(readlink "$home/current") then=$(readlink "$home/previous")
    before=$now
    ln -sfn "$then" "$home/current"
    ln -sfn "$now" "$home/previous"
    restart || die "the version before does not start: journalctl -u fleetmark-agent"
    say "back at $("$home/current/bin/fleetmark-agent" --version)"
}

# Also part of the Debian package's postrm: when that purges, this file is gone.
purge_rest() {
    rm -rf "$home" "$state" "$settings"
    for file in agent-password agent-ca.crt agent.crt agent.key; do rm -f "${settings%/*}/$file"; done
    rmdir "${settings%/*}" 2>/dev/null || true
    ! getent passwd fleetmark-agent >/dev/null || userdel fleetmark-agent || true
}

uninstall() {
    be_root
    systemctl disable --quiet --now fleetmark-agent.service 2>/dev/null || true
    rm -f "$unit" "$command"
    [ "$packaged" = yes ] || rm -f "$users"
    rm -rf "$home"
    [ ! -d "$root/run/systemd/system" ] || systemctl daemon-reload
    if [ "$action" = purge ]; then
        purge_rest
        say "nothing is left"
    else
        [ "$packaged" = yes ] && how='apt purge fleetmark-agent' || how=--purge
        say "removed; $settings and $state stay ($how removes them, too)"
    fi
}

case $action in
download) fetch ;;
install) install_agent ;;
rollback) rollback ;;
uninstall | purge) uninstall ;;
esac
