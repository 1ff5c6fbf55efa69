# shellcheck shell=bash disable=SC2154,SC2086
# A centre by deploy/install-centre.sh, and an enrolled agent as a service that reaches it over TLS.
. "$(dirname "$0")/common.sh"

expect "install-centre.sh" $checkout/deploy/install-centre.sh centre.test
healthy() {
    python3 -c 'import urllib.request; urllib.request.urlopen("http://127.0.0.1:9108/healthz", timeout=2)'
}
within 30 "the collector is healthy" healthy
expect "again, without names" $checkout/deploy/install-centre.sh
for one in fleetmark-broker fleetmark-collector; do
    expect "$one runs" active $one.service
    say "security score: $(score $one.service)"
    expect "it is under 3" systemd-analyze security --no-pager --threshold=30 $one.service
done
within 30 "the collector is healthy again" healthy
within 10 "fleetmark doctor" fleetmark doctor

frozen=$(unit MainPID fleetmark-collector)
kill -STOP "$frozen"
thawed() { active fleetmark-collector && [ "$(unit MainPID fleetmark-collector)" != "$frozen" ] && healthy; }
within 260 "a frozen collector is killed by the watchdog and started again" thawed

now=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' $checkout/protocol/fleetmark_protocol/version.py)
make_version "$now"
expect "install the agent" $checkout/deploy/install-agent.sh --with xllamacpp --offline "/root/$now/wheels" --no-start
put_kit() { install -m 640 -g fleetmark-agent /etc/fleetmark/devices/board/* /etc/fleetmark/ && systemctl restart fleetmark-agent; }
shown_as() { # True or False
    is "$(fleetmark devices --json | python3 -c 'import json, sys
print(*(one["online"] for one in json.load(sys.stdin) if one["device"] == "board"))')" "$1"
}
enrolled() { # KIND
    expect "enroll $1" fleetmark enroll board "$1"
    expect "the kit, and a start" put_kit
    within 60 "online, over TLS" shown_as True
}
shut_out() { # WHAT
    within 60 "$1: the agent is told" sh -c 'fleetmark-agent status | grep -i "not authorized\|refuse"'
    within 60 "$1: the centre shows it offline" shown_as False
    expect "$1: the agent waits, and runs" active
    rm -f /etc/fleetmark/agent*
}
enrolled --password
expect "the agent's doctor" fleetmark-agent doctor
expect "revoke" fleetmark revoke board
shut_out "revoked"

enrolled --password
python3 - <<'PYTHON'
import json
file = open("/etc/fleetmark/identities.json", "r+")
kept = json.load(file)
for one in kept["identities"].values():
    one["ends"] = "2026-01-01T00:00:00Z"
file.seek(0)
json.dump(kept, file)
file.truncate()
PYTHON
expect "the daily task" systemctl start fleetmark-revoke-expired.service
shut_out "expired"

enrolled --certificate
expect "the agent's doctor" fleetmark-agent doctor
