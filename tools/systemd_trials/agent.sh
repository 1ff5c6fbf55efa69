# shellcheck shell=bash disable=SC2154,SC2086
# The agent as a service, installed by deploy/install-agent.sh, without any broker.
. "$(dirname "$0")/common.sh"

install_version() { "/root/$1/deploy/install-agent.sh" --with xllamacpp --offline "/root/$1/wheels" "${@:2}"; }
version() { fleetmark-agent --version | grep -o '[0-9.]*$'; }

now=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' $checkout/protocol/fleetmark_protocol/version.py)
newer=${now%.*}.$((${now##*.} + 1)) broken=${now%.*}.$((${now##*.} + 2))
for one in "$now" "$newer"; do make_version "$one"; done
make_version "$broken" '1a raise RuntimeError("this one does not start")'

printf 'device_id = "board"\nstate_dir = "%s"\n[broker]\nhost = "127.0.0.1"\nport = 18830\n' $state >/root/agent.toml
expect "install" install_version "$now" --config /root/agent.toml
expect "it runs, with no broker there" active
is "$(version)" "$now" || die "version"
chmod o= $settings && echo '# mine' >>$settings
expect "install again" install_version "$now"
expect "settings stay" grep -q '# mine' $settings
expect "upgrade" install_version "$newer"
is "$(version)" "$newer" || die "version"
refuse 1 "a version that does not start gives way" install_version "$broken"
is "$(version)" "$newer" || die "version"
expect "the one before runs" active
expect "roll-back" "$checkout/deploy/install-agent.sh" --rollback
is "$(version)" "$now" || die "version"
expect "upgrade again" install_version "$newer"
before=$(echo /opt/fleetmark-agent/previous/lib/python3*/site-packages/fleetmark_agent/service.py)
cp "$before" /tmp/service.py && sed -i '1a raise RuntimeError("this one does not start")' "$before"
refuse 1 "a roll-back to what does not start gives way" $checkout/deploy/install-agent.sh --rollback
is "$(version)" "$newer" || die "version"
expect "the one that ran runs" active
refuse 1 "and does so again" $checkout/deploy/install-agent.sh --rollback
expect "the one that ran runs" active
cp /tmp/service.py "$before"
refuse 2 "wheels of another version" $checkout/deploy/install-agent.sh --offline "/root/$newer/wheels"
expect "downgrade" install_version "$now"
is "$(version)" "$now" || die "version"

say "security score: $(score fleetmark-agent.service)"
expect "it is under 3" systemd-analyze security --no-pager --threshold=30 fleetmark-agent.service

sed -i 's/^device_id = .*/device_id = "board"\nlog_level = "debug"/' $settings
expect "reload takes new settings" fleetmark-agent reload
cp $settings /tmp/good.toml && echo 'nonsense = 1' >>$settings
refuse 2 "reload of wrong settings" fleetmark-agent reload
expect "the agent goes on" active
cp /tmp/good.toml $settings

before=$(unit MainPID)
kill -STOP "$before"
# WatchdogSec, and the abort that it begins with.
another() { is "$(unit NRestarts)" 1 && active && [ "$(unit MainPID)" != "$before" ]; }
within 260 "a frozen agent is killed by the watchdog and started again" another
expect "systemd says it was the watchdog" sh -c 'journalctl -u fleetmark-agent -o cat | grep -i "watchdog timeout"'

begun=$(date +%s)
expect "stop" systemctl stop fleetmark-agent
is "$(unit Result)" success || die "stopped, but $(unit Result)"
[ $(($(date +%s) - begun)) -lt 45 ] || die "it took longer than TimeoutStopSec"
expect "start" systemctl start fleetmark-agent

expect "uninstall" $checkout/deploy/install-agent.sh --uninstall
for gone in /opt/fleetmark-agent /etc/systemd/system/fleetmark-agent.service /usr/local/bin/fleetmark-agent; do
    [ ! -e $gone ] || die "$gone is left"
done
expect "settings and records are left" test -s $settings -a -s $state/outbox.db
expect "install over them" install_version "$now"
expect "they count" grep -q '# mine' $settings
# As `fleetmark fleet install` leaves.
cp -p $settings $settings.old
expect "purge" $checkout/deploy/install-agent.sh --purge
for gone in /opt/fleetmark-agent /etc/fleetmark $state; do [ ! -e $gone ] || die "$gone is left"; done
! getent passwd fleetmark-agent || die "the user is left"
say "ok: nothing is left"
