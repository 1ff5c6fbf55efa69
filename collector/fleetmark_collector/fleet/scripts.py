"""What is run on a device, as root: constants, fed by standard input alone."""

from fleetmark_collector.fleet.kits import CREDENTIALS, ON_DEVICE, SETTINGS
from fleetmark_collector.fleet.probe import PACKAGE

USER = 'u fleetmark-agent - "fleetmark agent" /var/lib/fleetmark-agent'
"""The agent's user, as its package makes it: a kit comes before the package does."""

# Input: a tar of the kit. Each file is put in place whole, readable by the agent alone; credentials
# of another kind than the kit's go. The settings stay where it brings none.
PUT_KIT = f"""\
set -eu
umask 077
command -v systemd-sysusers >/dev/null || {{ echo 'systemd-sysusers is missing' >&2; exit 1; }}
systemd-sysusers --inline '{USER}'
[ -d {ON_DEVICE} ] || install -d -m 755 {ON_DEVICE}
new=$(mktemp -d {ON_DEVICE}/.kit.XXXXXX)
trap 'rm -rf "$new"' EXIT
tar -x --no-same-owner -C "$new" -f -
chown root:fleetmark-agent "$new"/*
chmod 640 "$new"/*
if [ -e "$new/{SETTINGS}" ] && [ -e {ON_DEVICE}/{SETTINGS} ]; then
    cp -p {ON_DEVICE}/{SETTINGS} {ON_DEVICE}/{SETTINGS}.old
fi
for file in {" ".join(CREDENTIALS)}; do
    if [ -e "$new/$file" ]; then mv -f "$new/$file" {ON_DEVICE}/; else rm -f "{ON_DEVICE}/$file"; fi
done
if [ -e "$new/{SETTINGS}" ]; then mv -f "$new/{SETTINGS}" {ON_DEVICE}/; fi
"""

# Input: the package. apt says on standard output what it does, and why not; it needs no network
# where all that the package depends on is there.
INSTALL = f"""\
set -eu
dir=$(mktemp -d /var/tmp/fleetmark.XXXXXX)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cat >"$dir/{PACKAGE}.deb"
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends --allow-downgrades --reinstall \\
    -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold \\
    "$dir/{PACKAGE}.deb" </dev/null >&2
"""

# Waits until the agent says that it is ready.
START = f"""\
set -eu
systemctl daemon-reload
systemctl enable --quiet {PACKAGE}.service
systemctl restart {PACKAGE}.service </dev/null ||
    {{ journalctl -u {PACKAGE}.service -n 3 --no-pager -o cat >&2; exit 1; }}
"""

# Input: for how many seconds to ask. Prints the last answer: JSON, or why there is none. Whether
# the collector takes the device's records shows with its first answer, a moment after the broker's;
# where no collector answers, the device is online all the same. Connected and yet not well is who
# is refused by the collector.
WAIT = """\
read -r seconds
until=$(($(date +%s) + seconds))
unheard=5
while :; do
    if said=$(fleetmark-agent status --json </dev/null 2>&1); then
        case $said in *'"collector_version": null'*) unheard=$((unheard - 1)) ;; *) break ;; esac
        if [ $unheard -eq 0 ]; then break; fi
    else
        case $said in *'"connected": true'*) break ;; esac
    fi
    if [ "$(date +%s)" -ge "$until" ]; then break; fi
    sleep 2
done
printf '%s\\n' "$said"
"""
