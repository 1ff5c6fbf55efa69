# shellcheck shell=bash disable=SC2154,SC2086
# Backup of a centre while a job runs; everything is lost; what comes back is what there was.
. "$(dirname "$0")/common.sh"
report() { fleetmark report "$1" --json -; }
campaigns() { fleetmark campaign list --json | python3 -c 'import json, sys; print(*(one["campaign_id"] for one in json.load(sys.stdin)))'; }
finished=$(campaigns | tr ' ' '\n' | grep ^long- | head -n 1)
report "$finished" >/root/before.json
[ -s /root/before.json ] || die "no report"

sed 's/^name: long/name: other/' /root/long.yaml >/var/lib/fleetmark/other.yaml
expect "a campaign begins" fleetmark campaign run --detach /var/lib/fleetmark/other.yaml
three() { fleetmark campaign status --json | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["trials_stored"] < 3)'; }
within 120 "it runs" three
expect "backup" fleetmark-backup
from=$(ls -d /var/backups/fleetmark/*)
expect "the collector went on" active fleetmark-collector.service

say "everything of the centre is lost"
systemctl stop fleetmark-collector fleetmark-broker influxdb
rm -rf /var/lib/fleetmark /var/lib/fleetmark-broker /var/lib/influxdb /etc/fleetmark /opt/fleetmark
install -d -o influxdb -g influxdb /var/lib/influxdb

# As docs/operate.md says.
expect "an empty centre" $checkout/deploy/install-centre.sh centre.test
systemctl stop fleetmark-collector
tar -xf "$from/etc-fleetmark.tar" -C /etc
systemctl restart fleetmark-broker
systemctl stop influxdb && rm -rf /var/lib/influxdb/meta /var/lib/influxdb/data /var/lib/influxdb/wal
systemctl start influxdb
listening() { python3 -c 'import socket; socket.create_connection(("127.0.0.1", 8088))'; }
within 60 "InfluxDB listens" listening
expect "influxd restore" influxd restore -portable -host 127.0.0.1:8088 -database fleetmark "$from/influxdb"
expect "its users" $checkout/deploy/setup_centre.py --dir /etc/fleetmark --group fleetmark influxdb1
expect "fleetmark restore" fleetmark restore "$from/collector"
expect "the collector starts" systemctl start fleetmark-collector

report "$finished" >/root/after.json
expect "the report is the same" cmp /root/before.json /root/after.json
online() { fleetmark devices --json | python3 -c 'import json, sys
sys.exit(not any(one["device"] == "board" and one["online"] for one in json.load(sys.stdin)))'; }
within 120 "the device is online again, with its old identity" online
over() { fleetmark campaign status --json | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["state"] == "RUNNING")'; }
within 900 "the campaign that ran has ended" over
say "it is $(fleetmark campaign status --json | python3 -c 'import json, sys; c = json.load(sys.stdin); print(c["state"], c["trials_stored"], "of", c["trials_planned"], "trials stored")')"
