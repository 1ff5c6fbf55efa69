# shellcheck shell=bash disable=SC2154,SC2086
# The agent's Debian package: apt installs, upgrades, downgrades, removes and purges it, without a network.
. "$(dirname "$0")/common.sh"

# What the trial of the centre may have left of the installer's.
$checkout/deploy/install-agent.sh --purge 2>/dev/null || true
now=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' $checkout/protocol/fleetmark_protocol/version.py)
newer=${now%.*}.$((${now##*.} + 1)) broken=${now%.*}.$((${now##*.} + 2))
for one in "$now" "$newer"; do make_version "$one"; done
make_version "$broken" '1a raise RuntimeError("this one does not start")'
for one in "$now" "$newer" "$broken"; do
    mkdir -p "/root/$one/only"
    expect "what the package of $one holds" /root/maker/bin/pip download --quiet --dest "/root/$one/only" \
        "$(ls "/root/$one/wheels"/fleetmark-*.whl)[agent,xllamacpp]"
    expect "package $one" "/root/$one/tools/build_deb.sh" --arch amd64 --wheels "/root/$one/only" --out /root/dist
done
put() { DEBIAN_FRONTEND=noninteractive apt-get install -y --allow-downgrades "/root/dist/fleetmark-agent_$1_amd64.deb"; }
version() { fleetmark-agent --version | grep -o '[0-9.]*$'; }
has() { active && is "$(version)" "$1"; }

expect "apt install" put "$now"
expect "it runs" has "$now"
echo '# mine' >>$settings
expect "security" systemd-analyze security --no-pager --threshold=30 fleetmark-agent.service
expect "upgrade" put "$newer"
expect "the new one runs" has "$newer"
refuse 100 "a version that does not start" put "$broken"
expect "the one before runs" has "$newer"
expect "downgrade" put "$now"
expect "the old one runs" has "$now"
expect "remove" apt-get remove -y fleetmark-agent
! active || die "it runs after removal"
expect "settings and records are left" test -s $settings -a -s $state/outbox.db
expect "install again" put "$now"
expect "settings count" grep -q '# mine' $settings
# As `fleetmark fleet install` leaves.
cp -p $settings $settings.old
expect "purge" apt-get purge -y fleetmark-agent
for gone in /opt/fleetmark-agent $settings $settings.old $state /usr/bin/fleetmark-agent; do [ ! -e $gone ] || die "$gone is left"; done
! getent passwd fleetmark-agent || die "the user is left"
say "ok: nothing is left"
