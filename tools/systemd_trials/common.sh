# shellcheck shell=bash disable=SC2034
# What the trials of tools/try_systemd.sh share; they run in its container, as root.
set -euo pipefail
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels
checkout=/root/fleetmark
settings=/etc/fleetmark/agent.toml
state=/var/lib/fleetmark-agent

say() { printf '  %s\n' "$*" >&2; }
die() {
    say "FAILED: $*"
    journalctl -u fleetmark-agent -u fleetmark-collector -u fleetmark-broker -n 15 --no-pager -o cat >&2
    exit 1
}
# expect WHAT COMMAND...: the command must succeed.
expect() {
    local what=$1
    shift
    "$@" >/tmp/expect.log 2>&1 || { cat /tmp/expect.log >&2; die "$what"; }
    say "ok: $what"
}
# refuse CODE WHAT COMMAND...: the command must end with this exit code.
refuse() {
    local wanted=$1 what=$2 code=0
    shift 2
    "$@" >/tmp/expect.log 2>&1 || code=$?
    [ "$code" -eq "$wanted" ] || { cat /tmp/expect.log >&2; die "$what: exit code $code instead of $wanted"; }
    say "ok: $what: $(tail -n 1 /tmp/expect.log | cut -c 1-160)"
}
# within SECONDS WHAT COMMAND...: the command must succeed by then.
within() {
    local left=$1 what=$2
    shift 2
    until "$@" >/tmp/within.log 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { cat /tmp/within.log >&2; die "$what"; }
        sleep 1
    done
    say "ok: $what"
}
unit() { systemctl show --value --property "$1" "${2:-fleetmark-agent.service}"; }
active() { [ "$(unit ActiveState "${1:-fleetmark-agent.service}")" = active ]; }
is() { [ "$1" = "$2" ] || { say "is '$1', not '$2'"; return 1; }; }
score() { systemd-analyze security --no-pager "$1" | tail -n 1; }
# make_version VERSION [SED]: a checkout of this version with its wheels in /root/VERSION; SED changes its service.py.
make_version() {
    [ ! -d "/root/$1" ] || return 0
    [ -d /root/maker ] || python3 -m venv /root/maker
    cp -r $checkout "/root/$1"
    sed -i "s/^__version__ = .*/__version__ = \"$1\"/" "/root/$1/protocol/fleetmark_protocol/version.py"
    [ -z "${2:-}" ] || sed -i "$2" "/root/$1/agent/fleetmark_agent/service.py"
    mkdir "/root/$1/wheels"
    ln -s /root/wheels/*.whl "/root/$1/wheels/"
    (cd "/root/$1" && /root/maker/bin/pip wheel --quiet --no-deps -w wheels .)
}
