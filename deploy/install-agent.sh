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
  --offline DIR    take everything from this directory, ask no network
  --download DIR   only fetch what --offline needs, for machines like this one
  --rollback       back to the version before
  --uninstall      remove service and program; settings and records stay
  --purge          remove settings, records and models, too
  --no-start       do not start the service

Exit codes: 0 done, 1 it failed (what ran before still runs), 2 wrong options or machine.
USAGE
}

home=/opt/fleetmark-agent
state=/var/lib/fleetmark-agent
settings=/etc/fleetmark/agent.toml
unit=/etc/systemd/system/fleetmark-agent.service
needed_kib=1500000
python=${PYTHON:-python3}

say() { printf '[fleetmark] %s\n' "$*" >&2; }
wrong() { say "$*"; exit 2; }
die() { say "$*"; exit 1; }

with=xllamacpp config='' offline='' download='' action=install start=yes
while [ $# -gt 0 ]; do
    case $1 in
    --with | --config | --offline | --download)
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

case $with in
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
config=$(from_here "$config") offline=$(from_here "$offline") download=$(from_here "$download")
[ -z "$config" ] || [ -r "$config" ] || wrong "--config: $config cannot be read"
[ -z "$offline" ] || [ -d "$offline" ] || wrong "--offline: $offline is no directory"
cd "$(dirname "$0")/.."
[ -f pyproject.toml ] || wrong "run this script where it is, in a checkout of fleetmark"

check_machine() {
    case $(uname -m) in
    x86_64 | aarch64) ;;
    *) wrong "$(uname -m) is not supported: fleetmark needs a 64-bit x86 or ARM system (on a Raspberry Pi: the 64-bit Raspberry Pi OS)" ;;
    esac
    command -v "$python" >/dev/null || wrong "$python is missing: apt install python3 python3-venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        wrong "Python 3.11 or newer is needed; this is $("$python" --version). PYTHON=/path/to/python3.11 chooses another"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || wrong "python3-venv is missing: apt install python3-venv"
}

be_root() {
    [ "$(id -u)" -eq 0 ] || wrong "run this as root (sudo)"
    command -v systemctl >/dev/null || wrong "systemd is missing; docs/install.md tells how to run the agent without it"
}

put_into() { # VENV WHAT
    if [ -n "$offline" ]; then set -- "$1" "$2" --no-index --find-links "$offline"; fi
    venv=$1 what=$2
    shift 2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir \
        -c constraints.txt "$what" "$@"
}

running() { systemctl is-active --quiet fleetmark-agent.service; }

restart() {
    systemctl daemon-reload
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
    free_kib=$(df -Pk /opt | awk 'NR == 2 { print $4 }')
    [ "$free_kib" -ge "$needed_kib" ] ||
        die "/opt: $((free_kib / 1024)) MiB free, $((needed_kib / 1024)) MiB needed; nothing was changed"
    mkdir -p "$home"
    new=$home/$(date -u +%Y%m%d-%H%M%S)-$$
    say "fleetmark agent ($extras) in $new"
    # A version that is half there is never the current one.
    trap 'rm -rf "$new"' EXIT
    "$python" -m venv "$new"
    if [ -n "$offline" ]; then
        wheel=$(find "$offline" -maxdepth 1 -name 'fleetmark-*.whl' | head -n 1)
        [ -n "$wheel" ] || wrong "--offline: no wheel of fleetmark in $offline; make one by --download"
        put_into "$new" "${wheel}[$extras]" || die "pip failed; nothing was changed"
    else
        put_into "$new" ".[$extras]" ||
            die "pip failed; is there a network? Nothing was changed"
    fi
    "$new/bin/fleetmark-agent" --version >/dev/null || die "the new version does not start; nothing was changed"

    say "user, settings and service"
    install -D -m 644 deploy/systemd/fleetmark-agent.sysusers.conf /usr/lib/sysusers.d/fleetmark-agent.conf
    systemd-sysusers /usr/lib/sysusers.d/fleetmark-agent.conf
    mkdir -p /etc/fleetmark
    # What the operator has set stays.
    [ -e "$settings" ] || install -m 640 -g fleetmark-agent "${config:-deploy/systemd/agent.toml}" "$settings"
    install -m 644 deploy/systemd/fleetmark-agent.service "$unit"
    install -m 755 deploy/systemd/fleetmark-agent /usr/local/bin/fleetmark-agent

    before=$(readlink "$home/current" || true)
    ln -sfn "$new" "$home/current.new"
    mv -T "$home/current.new" "$home/current"
    trap - EXIT
    if restart; then
        [ -z "$before" ] || { ln -sfn "$before" "$home/previous.new" && mv -T "$home/previous.new" "$home/previous"; }
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
    ln -sfn "$then" "$home/current"
    ln -sfn "$now" "$home/previous"
    restart || die "the version before does not start: journalctl -u fleetmark-agent"
    say "back at $("$home/current/bin/fleetmark-agent" --version)"
}

uninstall() {
    be_root
    systemctl disable --quiet --now fleetmark-agent.service 2>/dev/null || true
    rm -f "$unit" /usr/local/bin/fleetmark-agent /usr/lib/sysusers.d/fleetmark-agent.conf
    rm -rf "$home"
    systemctl daemon-reload
    if [ "$action" = purge ]; then
        rm -rf "$state" "$settings" /etc/fleetmark/agent-password /etc/fleetmark/agent-ca.crt
        rmdir /etc/fleetmark 2>/dev/null || true
        ! getent passwd fleetmark-agent >/dev/null || userdel fleetmark-agent
        say "nothing is left"
    else
        say "removed; $settings and $state stay (--purge removes them, too)"
    fi
}

case $action in
download) fetch ;;
install) install_agent ;;
rollback) rollback ;;
uninstall | purge) uninstall ;;
esac
