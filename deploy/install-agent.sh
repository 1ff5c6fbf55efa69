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
  --download DIR   only fetch what --offline needs, for machines like this one; wheels of other
                   versions of fleetmark are removed from there
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

with='' config='' kit='' offline='' download='' wheel='' new='' before='' action=install start=yes
while [ $# -gt 0 ]; do
    case $1 in
    --with | --config | --kit | --offline | --download)
        # An empty one is a variable that was never set: it shall not mean the default.
        case ${2:-} in '' | --*) wrong "$1 needs a value; --help lists the options" ;; esac
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
checks=$here/deploy/install-agent-checks.sh
{ [ -f "$here/constraints.txt" ] && [ -f "$checks" ]; } || wrong "run this script where it is, in a checkout of fleetmark"
# shellcheck source=/dev/null
. "$checks"
# Part of the Debian package: service, command and the user's name are dpkg's, the wheels are there.
packaged=no
if [ "$here" = "$(cd "$package" 2>/dev/null && pwd -P)" ]; then
    packaged=yes
    with=${with:-$(cat "$here/engines")} offline=${offline:-$here/wheels}
fi
case ${with:=xllamacpp} in
none) extras=agent ;;
*)
    left=$with,
    while [ -n "$left" ]; do
        case ${left%%,*} in
        xllamacpp | llama-cpp | ollama | ctransformers | langchain | transformers) left=${left#*,} ;;
        *) wrong "--with: unknown engine '${left%%,*}' (known: xllamacpp, llama-cpp, ollama, ctransformers, langchain, transformers, none); write several as A,B, and none alone" ;;
        esac
    done
    extras=agent,$with
    ;;
esac
# Said from where the script was called.
from_here() { case $1 in '' | /*) printf %s "$1" ;; *) printf %s "$PWD/$1" ;; esac; }
kit=$(from_here "$kit") config=$(from_here "$config")
offline=$(from_here "$offline") download=$(from_here "$download")
[ -z "$kit" ] || check_kit
[ -z "$config" ] || { [ -r "$config" ] && [ ! -d "$config" ]; } || wrong "--config: $config cannot be read"
[ -z "$offline" ] || [ -d "$offline" ] || wrong "--offline: $offline is no directory"
cd "$here"

put_into() { # VENV
    set -- "$1/bin/pip" install --disable-pip-version-check --no-cache-dir -c constraints.txt
    if [ -n "$offline" ]; then
        # The machine's own pip.conf may name places in the network.
        export PIP_CONFIG_FILE=/dev/null
        set -- "$@" --no-index --find-links "$offline"
    fi
    "$@" "${wheel:-.}[$extras]"
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
    if [ -n "$before" ] && ! systemctl is-enabled --quiet fleetmark-agent.service; then
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
    version=$(own_version)
    # Of another checkout: whoever takes the directory for a package would not know which.
    wheels_of_ours "$download" | grep -vF "/fleetmark-$version-" | while IFS= read -r wheel; do
        rm -f "$wheel"
        say "removed ${wheel##*/}: this is fleetmark $version"
    done
    say "done; on the other machine: deploy/install-agent.sh --with $with --offline DIR"
}

install_agent() {
    check_machine
    be_root
    # What is installed has three times the size of its wheels.
    [ -z "$offline" ] || needed_kib=$(($(du -sk "$offline/" | cut -f 1) * 4 + 50000))
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
    said=$(put_into "$new" 2>&1) || not_made "pip$([ -n "$offline" ] || echo ' (is there a network?)')" "$said"
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
    give_way "the new version" "the one before"
}

# What ran before runs again, and this has failed.
give_way() { # WHO TO_WHOM
    journalctl -u fleetmark-agent.service -n 5 --no-pager -o cat >&2 || true
    mend="Correct $settings, then: systemctl restart fleetmark-agent"
    [ -d "$before" ] || die "$1 is in place, but does not start: its last words are above. $mend"
    point "$home/current" "$before" || die "$1 does not start (its last words are above); $home/current cannot be written"
    [ -z "$new" ] || rm -rf "$new"
    restart || die "neither $1 nor $2 starts: the last words are above. $mend"
    die "$1 does not start (its last words are above); $2 runs again"
}

forget_old() {
    for version in "$home"/2*; do
        case $version in "$(readlink "$home/current")" | "$(readlink "$home/previous" || true)") ;; *) rm -rf "$version" ;; esac
    done
}

rollback() {
    be_root
    [ -d "$home/previous/" ] || wrong "there is no version before this one"
    before=$(readlink "$home/current" || true)
    point "$home/current" "$(readlink "$home/previous")" || die "$home/current cannot be written; what ran before still runs"
    restart || give_way "the version before" "the one that ran"
    [ -z "$before" ] || point "$home/previous" "$before"
    say "back at $("$home/current/bin/fleetmark-agent" --version)"
}

# Also part of the Debian package's postrm: when that purges, this file is gone.
purge_rest() {
    rm -rf "$home" "$state"
    # With what an end in the middle left, here or in `fleetmark fleet install`. The rest may be the collector's.
    for file in agent.toml agent.toml.old agent-password agent-ca.crt agent.crt agent.key; do
        rm -f "${settings%/*}/$file" "${settings%/*}/$file.new"
    done
    rm -rf "${settings%/*}"/.kit.??????
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
