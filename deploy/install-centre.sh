#!/bin/sh
# Sets a centre up on Debian or Raspberry Pi OS without containers, and brings it up to date.
# Safe to run again, with or without names.
#
#   sudo deploy/install-centre.sh NAME...     NAME: a name or address of this machine that devices
#                                             connect to, the best one first
#
# Before it: apt install mosquitto influxdb openssl python3-venv sudo. If Grafana is there, it gets
# its dashboards, too. docs/operate.md tells the rest.
set -eu
cd "$(dirname "$0")/.."

say() { printf '[fleetmark] %s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

[ "$(id -u)" -eq 0 ] || die "run this as root (sudo)"
for program in mosquitto influxd openssl python3 sudo systemctl; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
        die "$program is missing: apt install mosquitto influxdb openssl python3-venv sudo"
done

say "fleetmark in /opt/fleetmark"
[ -x /opt/fleetmark/bin/python ] || python3 -m venv /opt/fleetmark
/opt/fleetmark/bin/pip install --quiet --disable-pip-version-check --no-cache-dir \
    --upgrade --force-reinstall --no-deps .
/opt/fleetmark/bin/pip install --quiet --disable-pip-version-check --no-cache-dir \
    -c constraints.txt '.[collector]'

say "users, secrets and settings in /etc/fleetmark"
install -D -m 644 deploy/systemd/fleetmark.sysusers.conf /usr/lib/sysusers.d/fleetmark.conf
systemd-sysusers /usr/lib/sysusers.d/fleetmark.conf
setup() { deploy/setup_centre.py --dir /etc/fleetmark --group fleetmark "$@"; }
setup init "$@"
install -m 644 deploy/mosquitto/mosquitto.conf /etc/fleetmark/mosquitto.conf
# Where it was before: now it lies with the users, in broker/acl.
rm -f /etc/fleetmark/acl
# The operator's own changes stay.
[ -e /etc/fleetmark/collector.toml ] ||
    install -m 640 -g fleetmark deploy/systemd/collector.toml /etc/fleetmark/collector.toml
install -m 755 deploy/systemd/fleetmark /usr/local/bin/fleetmark
install -m 755 deploy/systemd/fleetmark-backup deploy/systemd/fleetmark-trim-wal /usr/local/sbin/

say "services"
install -m 644 deploy/systemd/fleetmark-broker.service deploy/systemd/fleetmark-collector.service \
    deploy/systemd/fleetmark-revoke-expired.service deploy/systemd/fleetmark-revoke-expired.timer \
    /etc/systemd/system/
for service in influxdb grafana-server; do
    install -D -m 644 "deploy/systemd/$service.service.d/fleetmark.conf" \
        "/etc/systemd/system/$service.service.d/fleetmark.conf"
done
systemctl daemon-reload
# Debian's own broker on port 1883 is of no use here.
systemctl disable --quiet --now mosquitto.service 2>/dev/null || true
systemctl enable --quiet influxdb.service fleetmark-broker.service fleetmark-collector.service
systemctl restart influxdb.service
tries=60
until python3 -c 'import socket; socket.create_connection(("127.0.0.1", 8086))' 2>/dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || die "InfluxDB does not listen on port 8086: journalctl -u influxdb"
    sleep 1
done
setup influxdb1
/usr/local/bin/fleetmark store init
systemctl restart fleetmark-broker.service fleetmark-collector.service
systemctl enable --quiet --now fleetmark-revoke-expired.timer

if [ -d /etc/grafana ]; then
    say "dashboards for Grafana"
    mkdir -p /var/lib/grafana/dashboards
    install -m 644 deploy/grafana/dashboards/*.json /var/lib/grafana/dashboards/
    for kind in dashboards alerting; do
        install -D -m 644 -t "/etc/grafana/provisioning/$kind" "deploy/grafana/provisioning/$kind"/*
    done
    install -D -m 640 -g grafana deploy/grafana/influxdb1/fleetmark.yaml \
        /etc/grafana/provisioning/datasources/fleetmark.yaml
    systemctl enable --quiet grafana-server.service
    systemctl restart grafana-server.service
else
    say "no Grafana here; install it from its makers' apt repository and run this again"
fi
say "done; see \`fleetmark doctor\`. The next step: fleetmark enroll DEVICE_ID"
